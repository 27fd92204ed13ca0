"""Making and pinning the namespaces of a pod; everything here runs in a thread made for it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from triptych_linux import interfaces, mounts, namespaces, syscalls
from triptych_linux.namespaces import Namespace

from triptych_runtime.namespaces import _sysctls
from triptych_runtime.namespaces._sysctls import Sysctl

FILES = {
    Namespace.NETWORK: "net",
    Namespace.IPC: "ipc",
    Namespace.UTS: "uts",
    Namespace.USER: "user",
    Namespace.PID: "pid",
}


def make(directory: Path, kinds: Sequence[Namespace], hostname: str, sysctls: Iterable[Sysctl]) -> None:
    """New namespaces for the calling thread, set up and pinned in `directory`; on failure nothing stays."""
    directory.mkdir(mode=0o755)
    try:
        if kinds:
            namespaces.unshare(*kinds)
        _set_up(kinds, hostname, sysctls, None)
        for kind in kinds:
            namespaces.pin(kind, directory / FILES[kind])
    except BaseException:
        remove(directory)
        raise


def adopt(
    directory: Path,
    pid: int,
    kinds: Sequence[Namespace],
    hostname: str,
    sysctls: Iterable[Sysctl],
    root: tuple[int, int],
) -> None:
    """Pin the user namespace of a process and the namespaces that it owns, and set those up from inside.

    :param kinds: the owned ones, without the user namespace.
    :param root: host UID and GID of its root.
    """
    directory.mkdir(mode=0o755)
    try:
        for kind in (Namespace.USER, *kinds):
            namespaces.pin(kind, directory / FILES[kind], task=str(pid))
        for kind in kinds:
            namespaces.enter(directory / FILES[kind], kind)
        _set_up(kinds, hostname, sysctls, root)
    except BaseException:
        remove(directory)
        raise


def write_late(directory: Path, sysctls: Iterable[Sysctl], root: tuple[int, int] | None) -> None:
    """Write sysctls of interfaces that exist by now."""
    namespaces.enter(directory / FILES[Namespace.NETWORK], Namespace.NETWORK)
    _sysctls.write(sysctls, root)


def _set_up(
    kinds: Sequence[Namespace], hostname: str, sysctls: Iterable[Sysctl], root: tuple[int, int] | None
) -> None:
    if Namespace.UTS in kinds and hostname:
        syscalls.sethostname(hostname)
    if Namespace.NETWORK in kinds:
        interfaces.set_up("lo")
    _sysctls.write(sysctls, root)


def remove(directory: Path) -> None:
    """Unpin everything in `directory` and remove it; nothing there is no error."""
    with contextlib.suppress(FileNotFoundError):
        for entry in directory.iterdir():
            namespaces.unpin(entry)
        directory.rmdir()


def prepare(root: Path) -> None:
    """Make `root` a mount of its own whose changes reach every mount namespace that was cloned from ours.

    Shared, because both alternatives leak or hide: with private propagation each container's or sandboxed
    service's mount namespace keeps a copy of the pins that were there when it was cloned, which nobody
    unmounts, and sees none of the later ones (the streaming daemon must). A peer group of its own, because
    as a peer of a shared /run every pin would be mounted twice, above and below this mount.
    """
    root.mkdir(mode=0o711, parents=True, exist_ok=True)
    if mounts.is_mount_point(root):
        return
    mounts.mount(root, root, None, mounts.Flag.BIND)
    mounts.mount("none", root, None, mounts.Flag.PRIVATE)
    mounts.mount("none", root, None, mounts.Flag.SHARED)
