"""Asking the three daemons, each of their instances, all at once, each under its own deadline."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import grpc
from runtime.v1 import api_pb2, api_pb2_grpc
from triptych.image.v1 import image_pb2, image_pb2_grpc
from triptych.streaming.v1 import streaming_pb2, streaming_pb2_grpc

from triptych_cli.context import Context, DaemonName
from triptych_cli.errors import CliError
from triptych_cli.instances import instances
from triptych_cli.rpc import channel
from triptych_cli.status import process
from triptych_cli.status.model import (
    Condition,
    Daemon,
    Filesystem,
    Images,
    Node,
    Pull,
    Runtime,
    Session,
    State,
    Streaming,
)

T = TypeVar("T")

_PULLS_SECONDS = 0.3
"""How long running pulls get to show themselves; the stream that tells them has no end."""


def collect(context: Context) -> Node:
    """Look at everything; what does not answer is part of the answer."""
    with ThreadPoolExecutor(max_workers=6) as pool:
        daemons = [
            pool.submit(daemon, each, name) for name in DaemonName for each in instances(context, name)
        ]
        problems: list[str] = []
        pods = pool.submit(_part, runtime, context, problems)
        stored = pool.submit(_part, images, context, problems)
        streams = [
            pool.submit(_part, streaming, each, problems)
            for each in instances(context, DaemonName.STREAMING)
        ]
        looked = tuple(future.result() for future in daemons)
        told = [part for part in (future.result() for future in streams) if part is not None]
        return Node(
            looked, pods.result(), stored.result(), _together(told) if told else None, tuple(problems)
        )


def _part(ask: Callable[[Context], T], context: Context, problems: list[str]) -> T | None:
    """A daemon that is down is told by its health check; other errors are told here."""
    try:
        return ask(context)
    except CliError as error:
        if getattr(error, "status", ""):
            problems.append(error.message)
        return None


def daemon(context: Context, name: DaemonName) -> Daemon:
    """The health check of one daemon, and what the kernel knows of its process."""
    socket = context.sockets[name]
    started = time.monotonic()
    try:
        serving, told = _check(context, name)
    except CliError as error:
        return Daemon(name, socket, State.DOWN, problem=error.message, hint=error.hint or "")
    seconds = time.monotonic() - started
    pid = int(told.get("triptych-pid", "0")) or process.listener_pid(socket, name.unit)
    return Daemon(
        name,
        socket,
        State.SERVING if serving else State.NOT_SERVING,
        version=told.get("triptych-version", ""),
        pid=pid,
        uptime=process.uptime(pid),
        memory=process.proportional_set_size(pid),
        answer=seconds,
    )


def reloads(context: Context, name: DaemonName) -> int | None:
    """How many reloads a daemon has finished; None for one that does not tell.

    :raises CliError: it does not answer.
    """
    told = _check(context, name)[1].get("triptych-reloads", "")
    return int(told) if told else None


def _check(context: Context, name: DaemonName) -> tuple[bool, dict[str, str]]:
    """Whether the daemon serves, and what it tells of itself beside that."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with channel(context, name) as opened:
        stub: Any = health_pb2_grpc.HealthStub(opened)
        answer, call = stub.Check.with_call(health_pb2.HealthCheckRequest(), timeout=context.timeout)
        told = {key: str(value) for key, value in call.initial_metadata() or ()}
    return answer.status == health_pb2.HealthCheckResponse.SERVING, told


def runtime(context: Context) -> Runtime:
    """Conditions, and the numbers of pods and containers.

    :raises CliError: the runtime daemon does not answer.
    """
    with channel(context, DaemonName.RUNTIME) as opened:
        stub = api_pb2_grpc.RuntimeServiceStub(opened)
        status = stub.Status(api_pb2.StatusRequest(), timeout=context.timeout)
        pods = stub.ListPodSandbox(api_pb2.ListPodSandboxRequest(), timeout=context.timeout).items
        containers = stub.ListContainers(api_pb2.ListContainersRequest(), timeout=context.timeout).containers
    return Runtime(
        tuple(Condition(c.type, c.status, c.reason, c.message) for c in status.status.conditions),
        dict(Counter(_word(api_pb2.PodSandboxState.Name(pod.state), "SANDBOX_") for pod in pods)),
        dict(Counter(_word(api_pb2.ContainerState.Name(c.state), "CONTAINER_") for c in containers)),
        tuple(handler.name for handler in status.runtime_handlers),
    )


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()


def images(context: Context) -> Images:
    """Images, disk use and running pulls.

    :raises CliError: the image daemon does not answer.
    """
    with channel(context, DaemonName.IMAGE) as opened:
        stub = api_pb2_grpc.ImageServiceStub(opened)
        listed = stub.ListImages(api_pb2.ListImagesRequest(), timeout=context.timeout).images
        usage = stub.ImageFsInfo(api_pb2.ImageFsInfoRequest(), timeout=context.timeout)
        pulls = running_pulls(opened, _PULLS_SECONDS)
    # Images and writable layers may share a file system; each list tells its own part.
    filesystems: dict[str, Filesystem] = {}
    for used in (*usage.image_filesystems, *usage.container_filesystems):
        name = used.fs_id.mountpoint
        known = filesystems.get(name, Filesystem(name, 0, 0))
        filesystems[name] = Filesystem(
            name, known.used_bytes + used.used_bytes.value, known.inodes + used.inodes_used.value
        )
    size = sum(image.size for image in listed)
    return Images(len(listed), size, tuple(filesystems.values()), pulls)


def running_pulls(opened: grpc.Channel, seconds: float) -> tuple[Pull, ...]:
    """The pulls that run now: what WatchPulls tells within some time."""
    stub = image_pb2_grpc.ImageAdminServiceStub(opened)
    found: dict[str, Pull] = {}
    watching = stub.WatchPulls(image_pb2.WatchPullsRequest(), timeout=seconds)
    try:
        for progress in watching:
            if progress.done:
                found.pop(progress.reference, None)
            else:
                found[progress.reference] = pull_of(progress)
    except grpc.RpcError as error:
        expected = (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED)
        if not (isinstance(error, grpc.Call) and error.code() in expected):
            raise
    return tuple(found[reference] for reference in sorted(found))


def pull_of(progress: image_pb2.PullProgress) -> Pull:
    """One progress message as totals over its layers."""
    ended = (image_pb2.PULL_STAGE_DONE, image_pb2.PULL_STAGE_PRESENT)
    return Pull(
        progress.reference,
        _word(image_pb2.PullStage.Name(progress.stage), "PULL_STAGE_"),
        sum(layer.received_bytes for layer in progress.layers),
        sum(layer.total_bytes for layer in progress.layers),
        len(progress.layers),
        sum(layer.stage in ended for layer in progress.layers),
        max(0.0, time.time() - progress.started_at / 1e9) if progress.started_at else 0.0,
        progress.host,
    )


def streaming(context: Context) -> Streaming:
    """Sessions that run in one instance or wait for their client.

    :raises CliError: the streaming daemon does not answer.
    """
    with channel(context, DaemonName.STREAMING) as opened:
        stub = streaming_pb2_grpc.StreamingServiceStub(opened)
        listed = stub.ListSessions(streaming_pb2.ListSessionsRequest(), timeout=context.timeout).sessions
    return Streaming(tuple(_session(session) for session in listed))


def _together(told: list[Streaming]) -> Streaming:
    """Each instance tells the sessions that it runs, and all that wait."""
    sessions = [session for part in told for session in part.sessions]
    found = {session.id: session for session in sorted(sessions, key=lambda session: session.active)}
    return Streaming(tuple(found.values()))


def _session(session: streaming_pb2.Session) -> Session:
    target = session.target
    names = [target.pod_namespace, target.pod_name, target.container_name]
    named = "/".join(name for name in names if name)
    return Session(
        session.id,
        _word(streaming_pb2.SessionKind.Name(session.kind), "SESSION_KIND_").replace("_", "-"),
        named or target.container_id or target.pod_sandbox_id,
        session.active,
        session.protocol,
        max(0.0, time.time() - session.created_at / 1e9) if session.created_at else 0.0,
        session.bytes_in,
        session.bytes_out,
        session.instance,
    )
