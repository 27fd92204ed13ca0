"""The files of a pod that its containers share: hostname, hosts, resolv.conf, and /dev/shm."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec
from triptych_linux import mounts

from triptych_runtime.namespaces.errors import DnsInvalid
from triptych_runtime.network.model import PodDns

DEFAULT_SHM_SIZE = 64 << 20

_HOSTNAME, _HOSTS, _RESOLV, _SHM = "hostname", "hosts", "resolv.conf", "shm"


class PodFilesOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What goes into the files of a pod.

    :param hostname: of the pod; with the host's UTS namespace, the host's.
    :param dns: absent or empty: the host's own resolv.conf, as containerd and CRI-O do.
    :param shm_size: bytes of /dev/shm; 0 for none (a pod with the host's IPC namespace uses the host's).
    :param owner: host UID and GID of the pod's root.
    :param mount_label: SELinux label of /dev/shm; "" for none.
    """

    hostname: str
    dns: PodDns | None = None
    shm_size: int = DEFAULT_SHM_SIZE
    owner: tuple[int, int] = (0, 0)
    mount_label: str = ""


@dataclass(frozen=True, slots=True)
class PodFilePaths:
    """Where the files are; `shm` is None when the pod has none of its own."""

    directory: Path
    hostname: Path
    hosts: Path
    resolv_conf: Path
    shm: Path | None


def resolv_conf(dns: PodDns) -> str:
    """The text of a resolv.conf (resolv.conf(5)); "" when nothing is set.

    :raises DnsInvalid: when a value would not stay within its line and word.
    """
    for kind, values in (("server", dns.servers), ("search domain", dns.searches), ("option", dns.options)):
        for value in values:
            if not value or any(c.isspace() or not c.isprintable() for c in value):
                raise DnsInvalid(f"DNS {kind} {value!r} is empty or has white space")
    lines = [f"search {' '.join(dns.searches)}"] if dns.searches else []
    lines += [f"nameserver {server}" for server in dns.servers]
    if dns.options:
        lines.append(f"options {' '.join(dns.options)}")
    return "".join(line + "\n" for line in lines)


class PodFiles:
    """Makes and removes the shared files of pods, kept below `<state>/sandboxes/<id>/`."""

    def __init__(self, state_dir: Path, *, etc: Path = Path("/etc")) -> None:
        self._root = state_dir / "sandboxes"
        self._etc = etc

    async def create(self, sandbox_id: str, options: PodFilesOptions) -> PodFilePaths:
        """Write the files and mount /dev/shm; replaces what is there. On failure nothing stays.

        :raises DnsInvalid: a DNS value that resolv.conf cannot hold.
        """
        return await asyncio.to_thread(self.create_now, sandbox_id, options)

    def create_now(self, sandbox_id: str, options: PodFilesOptions) -> PodFilePaths:
        """`create` for a caller that is in a thread already."""
        text = resolv_conf(options.dns) if options.dns is not None else ""
        directory = self._root / sandbox_id
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        try:
            _write(directory / _HOSTNAME, f"{options.hostname}\n".encode(), options.owner)
            _write(directory / _HOSTS, self._of_host("hosts"), options.owner)
            _write(directory / _RESOLV, text.encode() or self._of_host("resolv.conf"), options.owner)
            if options.shm_size:
                _mount_shm(directory / _SHM, options.shm_size, options.mount_label)
        except BaseException:
            self.destroy_now(sandbox_id)
            raise
        return self.paths(sandbox_id)

    def paths(self, sandbox_id: str) -> PodFilePaths:
        """Where the files of a pod are."""
        directory = self._root / sandbox_id
        shm = directory / _SHM
        return PodFilePaths(
            directory=directory,
            hostname=directory / _HOSTNAME,
            hosts=directory / _HOSTS,
            resolv_conf=directory / _RESOLV,
            shm=shm if shm.exists() else None,
        )

    async def destroy(self, sandbox_id: str) -> None:
        """Unmount and remove the files of a pod, and its directory once it is empty. Idempotent."""
        await asyncio.to_thread(self.destroy_now, sandbox_id)

    def destroy_now(self, sandbox_id: str) -> None:
        """`destroy` for a caller that is in a thread already."""
        directory = self._root / sandbox_id
        mounts.umount_all(directory / _SHM)
        for name in (_HOSTNAME, _HOSTS, _RESOLV):
            (directory / name).unlink(missing_ok=True)
        for remove in (directory / _SHM, directory):
            with contextlib.suppress(OSError):
                remove.rmdir()

    def ids(self) -> list[str]:
        """IDs of all pods that have files; for the reconciler."""
        try:
            return sorted(entry.name for entry in os.scandir(self._root))
        except FileNotFoundError:
            return []

    def _of_host(self, name: str) -> bytes:
        try:
            return (self._etc / name).read_bytes()
        except FileNotFoundError:
            return b""


def _write(path: Path, content: bytes, owner: tuple[int, int]) -> None:
    with path.open("wb", buffering=0) as file:
        file.write(content)
        os.fchmod(file.fileno(), 0o644)
        os.fchown(file.fileno(), *owner)


def _mount_shm(path: Path, size: int, label: str) -> None:
    path.mkdir(mode=0o1777, exist_ok=True)
    mounts.umount_all(path)
    flags = mounts.Flag.NOSUID | mounts.Flag.NODEV | mounts.Flag.NOEXEC
    data = f"mode=1777,size={size}" + (f',context="{label}"' if label else "")
    mounts.mount("shm", path, "tmpfs", flags, data)


__all__ = ["DEFAULT_SHM_SIZE", "PodFilePaths", "PodFiles", "PodFilesOptions", "resolv_conf"]
