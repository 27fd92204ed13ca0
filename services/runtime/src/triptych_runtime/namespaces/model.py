"""What a pod's namespaces are asked to be, and what they are."""

from __future__ import annotations

from pathlib import Path

import msgspec
from triptych_linux.namespaces import Namespace
from triptych_linux.pidfd import ProcessIdentity


class IdMapping(msgspec.Struct, frozen=True):
    """A range of IDs in a user namespace and where it lies on the host."""

    container_id: int
    host_id: int
    length: int


class UserMappings(msgspec.Struct, frozen=True):
    """The mappings of a pod with a user namespace (`hostUsers: false`)."""

    uids: tuple[IdMapping, ...]
    gids: tuple[IdMapping, ...]

    @property
    def root(self) -> tuple[int, int]:
        """Host UID and GID of the pod's root; of the first mapped ID where 0 is not mapped."""
        return _host_id(self.uids), _host_id(self.gids)


def _host_id(mappings: tuple[IdMapping, ...]) -> int:
    for mapping in mappings:
        if mapping.container_id == 0:
            return mapping.host_id
    return mappings[0].host_id


class NamespaceOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Which namespaces a pod gets of its own, and what is set in them.

    :param hostname: of the pod; with the host's UTS namespace it is not set.
    :param network, ipc, uts: own ones; False leaves the host's.
    :param users: an own user namespace, which then owns the others.
    :param sysctls: as the CRI gives them; each must be one of an own namespace.
    """

    hostname: str = ""
    network: bool = True
    ipc: bool = True
    uts: bool = True
    users: UserMappings | None = None
    sysctls: dict[str, str] = {}


class PinnedNamespaces(msgspec.Struct, frozen=True):
    """The namespaces of a pod that exist, as paths of their pins; None is the host's.

    `pid` is set once a pod that shares its PID namespace has its init (`PodInit`).
    """

    sandbox_id: str
    net: Path | None = None
    ipc: Path | None = None
    uts: Path | None = None
    user: Path | None = None
    pid: Path | None = None

    def path(self, kind: Namespace) -> Path | None:
        """The pin of one kind."""
        value: Path | None = getattr(self, "net" if kind is Namespace.NETWORK else kind.value)
        return value

    def paths(self) -> dict[str, str]:
        """Kind ("net", "ipc", "uts", "user", "pid") to path, of those that exist."""
        named = {"net": self.net, "ipc": self.ipc, "uts": self.uts, "user": self.user, "pid": self.pid}
        return {kind: str(path) for kind, path in named.items() if path is not None}


class InitProcess(msgspec.Struct, frozen=True):
    """The init of a shared PID namespace."""

    pid: int
    start_ticks: int

    @property
    def identity(self) -> ProcessIdentity:
        """To find the same process again after a restart of the daemon."""
        return ProcessIdentity(self.pid, self.start_ticks)
