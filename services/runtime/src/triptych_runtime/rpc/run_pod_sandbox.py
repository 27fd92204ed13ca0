"""RunPodSandbox: namespaces, network, files, cgroup. No process runs in a pod before its containers,
unless it shares its PID namespace."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import msgspec
from runtime.v1 import api_pb2
from triptych_linux.process import shielded
from triptych_service.tracing import span

from triptych_runtime import clock
from triptych_runtime.containers import emit_sandbox
from triptych_runtime.errors import InvalidArgument, NameInUse
from triptych_runtime.lifecycle import Undo, deadline, fault, together
from triptych_runtime.model import SandboxPhase, SandboxRecord, new_id
from triptych_runtime.namespaces import PinnedNamespaces
from triptych_runtime.node import Node
from triptych_runtime.sandboxes import (
    attachment,
    discard_sandbox,
    files_options,
    namespace_options,
    user_mappings,
)
from triptych_runtime.spec import labels_of_pod, validate_sandbox

log = logging.getLogger(__name__)


async def run_pod_sandbox(
    node: Node, request: api_pb2.RunPodSandboxRequest, *, restored_from: str = ""
) -> api_pb2.RunPodSandboxResponse:
    """Make a sandbox and bring it to ready.

    A retry with the same name, namespace, uid and attempt joins the attempt that runs, or finds its result.

    :param restored_from: the checkpoint that RestorePod, whose first step this is then, restores from.
    :raises InvalidArgument: naming the field. :raises UnknownHandler, HandlerUnusable: for the handler.
    :raises NameInUse: for another configuration, or a stopped sandbox, under the same name and attempt.
    :raises TriptychError: of the step that failed; nothing is left then.
    """
    config = request.config
    if not config.HasField("metadata") or not config.metadata.name:
        raise InvalidArgument("config.metadata.name: a pod sandbox needs a name")
    handler = node.handlers.get(request.runtime_handler)
    validate_sandbox(config, node.host, handler.features)
    parent = config.linux.cgroup_parent
    identity = new_id()
    labels = labels_of_pod(config, identity, node.host)
    draft = SandboxRecord(
        id=identity,
        phase=SandboxPhase.CREATING,
        config=config,
        handler=request.runtime_handler,
        created_at=clock.after(_of_the_same_pod(node, config.metadata.uid)),
        cgroup_parent=node.cgroups.check_parent(parent) if parent else "",
        owns_cgroup=not parent,
        overhead=config.linux.overhead if config.linux.HasField("overhead") else None,
        resources=config.linux.resources if config.linux.HasField("resources") else None,
        selinux_process_label=labels.process,
        selinux_mount_label=labels.mount,
        restored_from=restored_from,
        restoring=bool(restored_from),
    )
    found = None if f"run {draft.key}" in node.flights else _existing(node, draft)
    if found is None:
        identity = await node.flights.join(f"run {draft.key}", lambda: _run(node, draft))
        found = _existing(node, draft) or identity
    return api_pb2.RunPodSandboxResponse(pod_sandbox_id=found)


def _of_the_same_pod(node: Node, uid: str) -> Iterator[int]:
    """When the sandboxes of a pod were created."""
    return (s.created_at for s in node.state.sandboxes.values() if s.config.metadata.uid == uid)


def _existing(node: Node, draft: SandboxRecord) -> str | None:
    """The sandbox of this name and attempt, None for none, or one that is being removed.

    :raises NameInUse: when it is not what is asked for.
    """
    identity = node.state.by_key(draft.key)
    record = node.state.sandboxes.get(identity) if identity else None
    if record is None or record.phase not in (SandboxPhase.READY, SandboxPhase.NOT_READY):
        return None
    # An undo of RestorePod removes its pod, which is to be nobody else's.
    same = (record.config, record.handler, record.restoring) == (
        draft.config,
        draft.handler,
        draft.restoring,
    )
    if record.phase is SandboxPhase.READY and same:
        return record.id
    state = "is configured otherwise" if record.phase is SandboxPhase.READY else "was stopped"
    meta = record.config.metadata
    raise NameInUse(
        f"pod sandbox {meta.namespace}/{meta.name} attempt {meta.attempt} exists as {record.id} and {state}",
        hint="remove it or raise the attempt",
    )


async def _run(node: Node, record: SandboxRecord) -> str:
    what = f"run pod sandbox {_name(record)}"
    async with deadline(node.settings.deadlines.create, what), Undo(record.id) as undo:
        if record.owns_cgroup:
            record = msgspec.structs.replace(record, cgroup_parent=node.cgroups.default_parent(record.id))
        node.namespaces.check(namespace_options(record))
        await node.state.save(record)
        log.info("making pod sandbox", extra={"sandbox": record.id, "pod": _name(record)})
        undo.push("record", lambda: node.state.delete(record))
        fault("run_pod_sandbox.record")
        begun = record
        undo.push("sandbox", lambda: discard_sandbox(node, begun))
        record = await _build(node, begun)
        fault("run_pod_sandbox.built")
        built = record
        undo.push("NRI plugins", lambda: node.nri.remove_pod_sandbox(built))
        await node.nri.run_pod_sandbox(built)
        fault("run_pod_sandbox.nri")
        record = msgspec.structs.replace(record, phase=SandboxPhase.READY)
        await node.state.save(record)
    node.nri.pod_is_ready(record.id)
    log.info(
        "pod sandbox is ready", extra={"sandbox": record.id, "pod": _name(record), "ips": list(record.ips)}
    )
    emit_sandbox(node, record, api_pb2.CONTAINER_CREATED_EVENT)
    emit_sandbox(node, record, api_pb2.CONTAINER_STARTED_EVENT)
    return record.id


def _name(record: SandboxRecord) -> str:
    meta = record.config.metadata
    return f"{meta.namespace}/{meta.name}"


async def _build(node: Node, record: SandboxRecord) -> SandboxRecord:
    with span("create namespaces"):
        pinned = await node.namespaces.create(record.id, namespace_options(record))
    fault("run_pod_sandbox.namespaces")
    record = msgspec.structs.replace(record, namespaces=pinned.paths())
    built: dict[str, Any] = {}
    files = node.files.create(record.id, files_options(record, node.settings.containers.shm_size))
    # The network takes by far the longest, and nothing else waits for it. Files and cgroup are made in
    # threads, which cannot be cancelled: what they still make must not come after it was undone.
    await together(
        _network(node, record, built),
        shielded(files, node.settings.deadlines.create),
        _cgroup_and_init(node, record, pinned, built),
    )
    fault("run_pod_sandbox.network")
    await node.namespaces.finish(record.id, namespace_options(record))
    return msgspec.structs.replace(record, namespaces=node.namespaces.get(record.id).paths(), **built)


async def _network(node: Node, record: SandboxRecord, built: dict[str, Any]) -> None:
    if record.host_network:
        return
    with span("setup network"):
        result = await node.network.setup(attachment(record))
    fault("run_pod_sandbox.attached")
    built.update(network_ready=True, ips=tuple(result.ips))


async def _cgroup_and_init(
    node: Node, record: SandboxRecord, pinned: PinnedNamespaces, built: dict[str, Any]
) -> None:
    if record.owns_cgroup:
        making = node.cgroups.create_pod(record.id, record.resources, record.overhead)
        await shielded(making, node.settings.deadlines.create)
        fault("run_pod_sandbox.cgroup")
    if record.options.pid != api_pb2.POD:
        return
    path = node.cgroups.container_path(record.cgroup_parent, record.id)
    with span("start pod init"):
        process = await node.init.start(
            pinned, lambda pid: node.cgroups.adopt(pid, path), users=user_mappings(record)
        )
    fault("run_pod_sandbox.init")
    built.update(init_pid=process.pid, init_start_ticks=process.start_ticks)
