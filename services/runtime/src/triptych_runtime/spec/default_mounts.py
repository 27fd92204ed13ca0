"""The file systems that every container has: /proc, /dev and what is in it, /sys, cgroups."""

from __future__ import annotations

from typing import Any, Final

from triptych_runtime.spec.facts import HostFacts
from triptych_runtime.spec.inputs import ContainerInputs, SandboxContext
from triptych_runtime.spec.namespaces import has_cgroup_namespace

_DEVPTS_GID: Final = 5


def defaults(host: HostFacts, sandbox: SandboxContext, inputs: ContainerInputs) -> list[dict[str, Any]]:
    """The file systems of every container, in the order in which they are to be made."""
    privileged = inputs.security.privileged
    access = "rw" if privileged else "ro"
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if _maps_gid(sandbox, _DEVPTS_GID):
        pts.append(f"gid={_DEVPTS_GID}")
    hidden = ["nosuid", "noexec", "nodev"]
    cgroup = [*hidden, "relatime", "rw" if inputs.cgroup_writable else access]
    if not has_cgroup_namespace(inputs.security, host):
        cgroup += host.cgroup_mount_options
    return [
        entry("/proc", "proc", "proc", hidden),
        entry("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        entry("/dev/pts", "devpts", "devpts", pts),
        entry("/dev/shm", "tmpfs", "shm", [*hidden, "mode=1777", "size=65536k"]),
        entry("/dev/mqueue", "mqueue", "mqueue", hidden),
        _sys(sandbox, [*hidden, access]),
        entry("/sys/fs/cgroup", "cgroup", "cgroup", cgroup),
    ]


def _sys(sandbox: SandboxContext, options: list[str]) -> dict[str, Any]:
    """sysfs, or where the kernel refuses to mount that (a network namespace that the pod's user namespace
    does not own) a read-only view of the host's."""
    if sandbox.user_namespace is not None and sandbox.namespaces.network is None:
        return entry("/sys", "bind", "/sys", ["rbind", "rprivate", "rro", "nosuid", "nodev", "noexec"])
    return entry("/sys", "sysfs", "sysfs", options)


def _maps_gid(sandbox: SandboxContext, gid: int) -> bool:
    user = sandbox.user_namespace
    return user is None or any(m.container_id <= gid < m.container_id + m.length for m in user.gids)


def entry(destination: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    """A mount of the document."""
    return {"destination": destination, "type": kind, "source": source, "options": list(options)}
