"""Bind mounts that the daemon makes itself, since the OCI runtime cannot.

Idmapped ones for an old handler; and those with options in a user namespace, where nobody may change what a
mount of the host has: crun leaves the options out, runc fails.
"""

from __future__ import annotations

from pathlib import Path

from runtime.v1 import api_pb2
from triptych_errors import FailedPrecondition

from triptych_runtime.spec.facts import HandlerFeatures
from triptych_runtime.spec.inputs import PreparedMount, SandboxContext


def prepare(
    mount: api_pb2.Mount,
    source: str,
    target: Path,
    sandbox: SandboxContext,
    handler: HandlerFeatures,
    *,
    image: bool,
) -> PreparedMount | None:
    """The mount to make on `target` for one of the request, or None where the handler can do it.

    :param source: what is mounted. :param image: it is an image volume, which has its mapping already.
    :raises FailedPrecondition: naming the container path, when the daemon cannot do it either.
    """
    idmapped = bool(mount.uidMappings) and not image and not handler.idmap_mounts
    options = tuple(mount.mount_options) if sandbox.user_namespace is not None else ()
    if not (idmapped or options):
        return None
    users = _users(mount, sandbox) if idmapped else None
    if mount.propagation == api_pb2.PROPAGATION_BIDIRECTIONAL:
        raise FailedPrecondition(
            f"mounts: {mount.container_path}: mount_options cannot be had with bidirectional propagation "
            "in a user namespace"
        )
    slave = mount.propagation == api_pb2.PROPAGATION_HOST_TO_CONTAINER
    return PreparedMount(Path(source), target, options, users, slave)


def _users(mount: api_pb2.Mount, sandbox: SandboxContext) -> Path:
    """The user namespace whose mapping the mount gets: the daemon has the pod's only."""
    pod = sandbox.user_namespace
    where = f"mounts: {mount.container_path}"
    if pod is None or sandbox.namespaces.user is None or not _same_mapping(mount, pod):
        raise FailedPrecondition(
            f"{where}: an ID mapping other than the pod's needs a runtime with idmapped mounts",
            hint="crun 1.9 or runc 1.2, or later",
        )
    if mount.propagation != api_pb2.PROPAGATION_PRIVATE:
        raise FailedPrecondition(
            f"{where}: propagation with an ID mapping needs a runtime with idmapped mounts",
            hint="crun 1.9 or runc 1.2, or later",
        )
    return sandbox.namespaces.user


def _same_mapping(mount: api_pb2.Mount, pod: api_pb2.UserNamespace) -> bool:
    return list(mount.uidMappings) == list(pod.uids) and list(mount.gidMappings) == list(pod.gids)
