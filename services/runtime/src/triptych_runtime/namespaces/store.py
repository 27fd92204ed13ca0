"""The pinned namespaces of all pods of the node."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path

from triptych_linux import namespaces, process
from triptych_linux.namespaces import Namespace

from triptych_runtime.namespaces import _make, _sysctls, _userns
from triptych_runtime.namespaces.errors import HostnameInvalid, NamespaceFailed, NamespacesUnsupported
from triptych_runtime.namespaces.model import NamespaceOptions, PinnedNamespaces
from triptych_runtime.namespaces.settings import NamespaceSettings

# include/uapi/linux/utsname.h, __NEW_UTS_LEN
_HOSTNAME_LIMIT = 64


class PodNamespaces:
    """Makes, finds and destroys pod namespaces: bind mounts `<state>/ns/<id>/{net,ipc,uts,user,pid}`."""

    def __init__(self, state_dir: Path, settings: NamespaceSettings | None = None) -> None:
        self._root = state_dir / "ns"
        self._settings = settings or NamespaceSettings()

    async def start(self) -> None:
        """Prepare the directory of pins; call it once before anything else."""
        await asyncio.to_thread(_make.prepare, self._root)

    async def create(self, sandbox_id: str, options: NamespaceOptions) -> PinnedNamespaces:
        """Make the namespaces of a pod, with hostname, sysctls and `lo` up; about a millisecond.

        Either all is there when it returns, or it raises and nothing is.

        :raises SysctlRefused: see `check`, or the kernel refuses one.
        :raises MappingInvalid, HostnameInvalid: see `check`.
        :raises NamespacesUnsupported: the kernel has no such namespace, or its limit is reached.
        :raises NamespaceFailed: it could not be pinned; also when the pod has namespaces already.
        """
        self.check(options)
        try:
            await process.shielded(self._create(sandbox_id, options), self._settings.deadline)
        except TimeoutError:
            await process.shielded(self.destroy(sandbox_id), self._settings.deadline)
            raise NamespaceFailed(
                f"namespaces of pod sandbox {sandbox_id}: not made within {self._settings.deadline:g} s"
            ) from None
        except OSError as error:
            raise _failure(sandbox_id, error) from error
        except asyncio.CancelledError:
            await process.shielded(self.destroy(sandbox_id), self._settings.deadline)
            raise
        return self.get(sandbox_id)

    def check(self, options: NamespaceOptions) -> None:
        """Refuse what can be known to be wrong without making anything; `create` does it too.

        :raises SysctlRefused: a sysctl that is not of a namespace of the pod's own.
        :raises MappingInvalid: ID mappings that the kernel would refuse.
        :raises HostnameInvalid: a hostname that it would refuse.
        """
        name = options.hostname
        if len(name.encode()) > _HOSTNAME_LIMIT or any(c.isspace() or not c.isprintable() for c in name):
            raise HostnameInvalid(f"hostname {name!r} is not one of at most {_HOSTNAME_LIMIT} characters")
        if options.users is not None:
            _userns.check(options.users)
        _sysctls.plan(options, self._settings)

    async def _create(self, sandbox_id: str, options: NamespaceOptions) -> None:
        directory = self._root / sandbox_id
        early = [item for item in _sysctls.plan(options, self._settings) if not item.late]
        wanted = (
            (Namespace.NETWORK, options.network),
            (Namespace.IPC, options.ipc),
            (Namespace.UTS, options.uts),
        )
        kinds = [kind for kind, own in wanted if own]
        if options.users is None:
            await namespaces.in_thread(lambda: _make.make(directory, kinds, options.hostname, early))
            return
        root = options.users.root
        async with _userns.holder(kinds, options.users, self._settings.deadline) as pid:
            await namespaces.in_thread(
                lambda: _make.adopt(directory, pid, kinds, options.hostname, early, root)
            )

    async def finish(self, sandbox_id: str, options: NamespaceOptions) -> None:
        """Write the sysctls of interfaces that CNI has made by now (`net.ipv4.conf.eth0...`), if any.

        :raises SysctlRefused: when there is no such interface, or the kernel refuses.
        """
        late = [item for item in _sysctls.plan(options, self._settings) if item.late]
        if late:
            directory = self._root / sandbox_id
            root = options.users.root if options.users else None
            await namespaces.in_thread(lambda: _make.write_late(directory, late, root))

    async def destroy(self, sandbox_id: str) -> None:
        """Unpin the namespaces of a pod; they end with their last process. Idempotent."""
        directory = self._root / sandbox_id
        if directory.exists():
            await asyncio.to_thread(_make.remove, directory)

    def get(self, sandbox_id: str) -> PinnedNamespaces:
        """The namespaces that a pod has; all None for an unknown pod."""
        directory = self._root / sandbox_id

        def pinned(kind: Namespace) -> Path | None:
            path = directory / _make.FILES[kind]
            return path if namespaces.is_pinned(path) else None

        return PinnedNamespaces(
            sandbox_id=sandbox_id,
            net=pinned(Namespace.NETWORK),
            ipc=pinned(Namespace.IPC),
            uts=pinned(Namespace.UTS),
            user=pinned(Namespace.USER),
            pid=pinned(Namespace.PID),
        )

    def ids(self) -> list[str]:
        """IDs of all pods that have namespaces, or halves of them; for the reconciler."""
        try:
            return sorted(entry.name for entry in os.scandir(self._root))
        except FileNotFoundError:
            return []


def _failure(sandbox_id: str, error: OSError) -> Exception:
    text = f"namespaces of pod sandbox {sandbox_id}: {error.strerror}" + (
        f": {error.filename}" if error.filename else ""
    )
    if error.errno == errno.ENOSPC:
        return NamespacesUnsupported(text, hint="see the limits in /proc/sys/user/max_*_namespaces")
    if error.errno in (errno.EINVAL, errno.EPERM, errno.ENOSYS):
        return NamespacesUnsupported(text, hint="the kernel lacks a namespace or forbids it")
    return NamespaceFailed(text)
