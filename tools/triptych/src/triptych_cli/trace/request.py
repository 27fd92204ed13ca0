"""Requests that carry a trace's identity."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from runtime.v1 import api_pb2, api_pb2_grpc
from triptych.image.v1 import image_pb2
from triptych.rootfs.v1 import rootfs_pb2
from triptych.streaming.v1 import streaming_pb2

from triptych_cli.context import Context, DaemonName
from triptych_cli.errors import WrongInput
from triptych_cli.rpc import channel
from triptych_cli.trace.model import Span

T = TypeVar("T")

_SERVED_BY = {
    "runtime.v1.RuntimeService": DaemonName.RUNTIME,
    "runtime.v1.ImageService": DaemonName.IMAGE,
    image_pb2.DESCRIPTOR.package + ".ImageAdminService": DaemonName.IMAGE,
    rootfs_pb2.DESCRIPTOR.package + ".RootfsService": DaemonName.IMAGE,
    streaming_pb2.DESCRIPTOR.package + ".StreamingService": DaemonName.STREAMING,
}


@dataclass(slots=True)
class Recorder:
    """The first spans of a trace: what this command asked for, as it saw it."""

    trace: str = field(default_factory=lambda: secrets.token_hex(16))
    root: str = field(default_factory=lambda: secrets.token_hex(8))
    spans: list[Span] = field(default_factory=list)

    def call(self, name: str, work: Callable[[tuple[tuple[str, str], ...]], T]) -> T:
        """Time a request; `work` is given the metadata that makes the daemon's spans children of it."""
        span_id = secrets.token_hex(8)
        started, failed = time.time_ns(), None
        try:
            return work((("traceparent", f"00-{self.trace}-{span_id}-01"),))
        except grpc.RpcError as error:
            failed = (error.details() if isinstance(error, grpc.Call) else None) or str(error)
            raise
        finally:
            self._add(span_id, self.root, name, started, failed)

    def finish(self, name: str, started: int) -> None:
        """The span around all of them."""
        self._add(self.root, "", name, started, None)

    def _add(self, span_id: str, parent: str, name: str, started: int, error: str | None) -> None:
        self.spans.append(
            Span(self.trace, span_id, parent, name, "triptych", started, time.time_ns(), error)
        )


@dataclass(frozen=True, slots=True)
class Rpc:
    """A unary or server-streaming RPC that can be made."""

    daemon: DaemonName
    method: MethodDescriptor
    request: Message


def parse(method: str, body: str) -> Rpc:
    """An RPC by its full name, with a JSON body.

    :raises WrongInput: no such method, or a body that does not fit.
    """
    service_name, _, name = method.strip("/").rpartition("/")
    if service_name not in _SERVED_BY:
        raise WrongInput(f"no service {service_name or method}", hint=f"one of {', '.join(_SERVED_BY)}")
    found = descriptor_pool.Default().FindServiceByName(service_name).methods_by_name.get(name)
    if found is None or found.client_streaming:
        raise WrongInput(f"{service_name} has no method {name}")
    request = message_factory.GetMessageClass(found.input_type)()
    try:
        json_format.Parse(body, request)
    except json_format.ParseError as error:
        raise WrongInput(f"the body is no {found.input_type.full_name}: {error}") from None
    return Rpc(_SERVED_BY[service_name], found, request)


def call(context: Context, recorder: Recorder, rpc: Rpc) -> dict[str, Any]:
    """Make an RPC; gives its answer, or the last message of a stream.

    :raises CliError: the daemon's error.
    """
    name = f"{rpc.method.containing_service.full_name}/{rpc.method.name}"
    with channel(context, rpc.daemon) as opened:
        make: Any = opened.unary_stream if rpc.method.server_streaming else opened.unary_unary
        invoke = make(
            f"/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(rpc.method.output_type).FromString,
        )
        answer = recorder.call(name, lambda metadata: _last(invoke(rpc.request, metadata=metadata)))
    return json_format.MessageToDict(answer) if answer is not None else {}


def _last(answer: Any) -> Any:
    """The answer, or the last message of a stream."""
    if not isinstance(answer, grpc.Call):
        return answer
    last = None
    for last in answer:  # type: ignore[attr-defined]  # noqa: B007
        pass
    return last


def read_pod(file: Path) -> api_pb2.PodSandboxConfig:
    """A pod configuration as crictl takes it.

    :raises WrongInput: the file is none.
    """
    config = api_pb2.PodSandboxConfig()
    try:
        json_format.ParseDict(json.loads(file.read_text()), config)
    except (ValueError, json_format.ParseError, OSError) as error:
        raise WrongInput(f"{file}: {error}", hint="a pod configuration as crictl runp takes it") from None
    return config


def run_pod(
    context: Context, recorder: Recorder, config: api_pb2.PodSandboxConfig, handler: str, *, keep: bool
) -> str:
    """Run a pod sandbox; stop and remove it again unless `keep`.

    :raises CliError: the daemon's error.
    """
    with channel(context, DaemonName.RUNTIME) as opened:
        stub = api_pb2_grpc.RuntimeServiceStub(opened)
        run = api_pb2.RunPodSandboxRequest(config=config, runtime_handler=handler)
        pod_id: str = recorder.call(
            "RunPodSandbox", lambda metadata: stub.RunPodSandbox(run, metadata=metadata)
        ).pod_sandbox_id
        if not keep:
            stop = api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod_id)
            recorder.call("StopPodSandbox", lambda metadata: stub.StopPodSandbox(stop, metadata=metadata))
            remove = api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod_id)
            recorder.call(
                "RemovePodSandbox", lambda metadata: stub.RemovePodSandbox(remove, metadata=metadata)
            )
    return pod_id
