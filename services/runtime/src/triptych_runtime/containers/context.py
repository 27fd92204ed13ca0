"""The pod as the spec builder sees it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from runtime.v1 import api_pb2
from triptych_linux import namespaces
from triptych_linux.pidfd import ProcessIdentity

from triptych_runtime.bundles import TARGET_PIN
from triptych_runtime.errors import ContainerNotRunning, InvalidArgument
from triptych_runtime.model import ContainerRecord, SandboxRecord
from triptych_runtime.node import Node
from triptych_runtime.spec import NamespacePaths, SandboxContext


def sandbox_context(node: Node, sandbox: SandboxRecord) -> SandboxContext:
    """The pod that a container joins."""
    pins = {kind: Path(path) for kind, path in sandbox.namespaces.items()}
    files = node.files.paths(sandbox.id)
    return SandboxContext(
        sandbox_id=sandbox.id,
        config=sandbox.config,
        namespaces=NamespacePaths(
            network=pins.get("net"),
            ipc=pins.get("ipc"),
            uts=pins.get("uts"),
            pid=pins.get("pid"),
            user=pins.get("user"),
        ),
        hostname=sandbox.config.hostname,
        hostname_file=files.hostname,
        hosts=files.hosts,
        resolv_conf=files.resolv_conf,
        shm=files.shm,
        process_label=sandbox.selinux_process_label,
        mount_label=sandbox.selinux_mount_label,
    )


async def pin_target(node: Node, record: ContainerRecord) -> Path | None:
    """Pin the PID namespace of the container that PID mode TARGET names; None in the other modes.

    The pin is part of the bundle: were the target to end before this container starts, its PID could name
    a process of the host by then.

    :raises InvalidArgument: when the target belongs to another pod.
    :raises ContainerNotRunning: when the target does not run.
    """
    options = record.config.linux.security_context.namespace_options
    if options.pid != api_pb2.TARGET:
        return None
    target = node.state.container(options.target_id)
    if target.sandbox_id != record.sandbox_id:
        raise InvalidArgument(
            f"namespace_options.target_id: container {target.id} belongs to another pod sandbox"
        )
    if not target.running:
        raise ContainerNotRunning(target.id, target.phase.value)
    bundle = node.paths.bundle(record.id)
    try:
        await asyncio.to_thread(_pin, target, bundle)
    except (FileNotFoundError, ProcessLookupError):
        raise ContainerNotRunning(target.id, "ended") from None
    return bundle / TARGET_PIN


def _pin(target: ContainerRecord, bundle: Path) -> None:
    bundle.mkdir(mode=0o711, exist_ok=True)
    namespaces.pin(namespaces.Namespace.PID, bundle / TARGET_PIN, task=str(target.pid))
    if not ProcessIdentity(target.pid, target.start_ticks).alive():
        raise ProcessLookupError(target.pid)
