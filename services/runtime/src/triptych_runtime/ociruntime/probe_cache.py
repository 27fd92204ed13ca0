"""What probes found, kept so that a restart of the daemon need not make containers before it is ready.

Valid for the same binary on the same boot with the same cgroup hierarchies mounted. Refusals are not kept:
they are looked at again at each start.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable

import msgspec
from triptych_errors import TriptychError
from triptych_linux import mounts

from triptych_runtime import clock


class Probed(msgspec.Struct, frozen=True):
    """What a probe found out about an OCI runtime.

    :param version: what `--version` prints. :param features: the document of `features`, b"" for none.
    """

    version: str
    features: bytes


class ProbeCache:
    """Probes by binary, in a text that the caller keeps."""

    def __init__(self, load: Callable[[], Awaitable[str]], save: Callable[[str], Awaitable[None]]) -> None:
        self._load = load
        self._save = save
        self._entries: dict[str, Probed] = {}
        self._used: dict[str, Probed] = {}
        self._host = ""

    async def open(self) -> None:
        """Read what was kept; nothing, where it cannot be read."""
        self._host = _host()
        try:
            self._entries = msgspec.json.decode(await self._load() or "{}", type=dict[str, Probed])
        except (msgspec.MsgspecError, TriptychError):
            self._entries = {}

    def get(self, path: str, systemd_cgroup: bool) -> Probed | None:
        """What is known of the binary at `path` as it is now."""
        key = self._key(path, systemd_cgroup)
        found = self._entries.get(key) if key else None
        if found is not None and key is not None:
            self._used[key] = found
        return found

    def put(self, path: str, systemd_cgroup: bool, found: Probed) -> None:
        """Keep what was found."""
        key = self._key(path, systemd_cgroup)
        if key is not None:
            self._used[key] = found

    async def close(self) -> None:
        """Write what was used or found; the rest is forgotten."""
        await self._save(msgspec.json.encode(self._used).decode())

    def _key(self, path: str, systemd_cgroup: bool) -> str | None:
        try:
            status = os.stat(path)
        except OSError:
            return None
        return f"{path} {status.st_ino} {status.st_size} {status.st_mtime_ns} {systemd_cgroup} {self._host}"


def _host() -> str:
    cgroups = [
        f"{m.mount_point} {m.super_options}" for m in mounts.mount_table() if m.fstype.startswith("cgroup")
    ]
    digest = hashlib.sha256("\n".join(sorted(cgroups)).encode()).hexdigest()[:16]
    return f"{clock.boot_id()} {digest}"
