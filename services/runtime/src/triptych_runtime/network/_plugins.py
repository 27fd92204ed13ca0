"""Running plugins (CNI specification, section 2): finding, executing, and understanding their errors."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from triptych_linux import marked, process
from triptych_linux.errors import ProcessTimeout
from triptych_linux.process import Completed
from triptych_service import span

from triptych_runtime.network import _versions
from triptych_runtime.network.errors import (
    PluginBusy,
    PluginFailed,
    PluginMissing,
    PluginTimeout,
    ResultInvalid,
)
from triptych_runtime.network.settings import NetworkSettings

log = logging.getLogger(__name__)

_TRY_AGAIN = 11
# Of the daemon's own life, no business of a plugin.
_PRIVATE = ("NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "OTEL_", "TRIPTYCH_", "CNI_")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_MAX_OUTPUT = 4 << 20
# Longer than a plugin needs that has the processor.
_SLOT_SECONDS = 1.0
_ORPHAN_SECONDS = 5.0

_Stamp = tuple[str, int, int, int]


class _Error(msgspec.Struct):
    """The error result; older plugins leave fields out."""

    code: int = 0
    msg: str = ""
    details: str = ""


class _Version(msgspec.Struct, rename="camel"):
    supported_versions: tuple[str, ...] = ()


class Plugins:
    """The plugins of this node."""

    def __init__(self, settings: NetworkSettings) -> None:
        self.settings = settings
        limit = settings.parallel or max(8, 4 * (os.cpu_count() or 1))
        self._free = asyncio.Semaphore(limit)
        self._versions: dict[_Stamp, frozenset[str]] = {}
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_PRIVATE)}
        # Plugins look for iptables and the like.
        self._environment = {"PATH": _PATH, **inherited}

    def find(self, plugin: str) -> Path:
        """The program of a plugin.

        :raises PluginMissing: when no directory has it.
        """
        for directory in self.settings.bin_dirs:
            path = Path(directory, plugin)
            try:
                mode = path.stat().st_mode
            except OSError:
                continue
            if stat.S_ISREG(mode) and mode & 0o111:
                return path
        raise PluginMissing(plugin, self.settings.bin_dirs)

    async def versions(self, plugin: str) -> frozenset[str]:
        """The versions that a plugin speaks; asked once for each state of its program.

        :raises PluginMissing, PluginFailed, PluginTimeout, ResultInvalid: when it cannot tell.
        """
        path = self.find(plugin)
        try:
            found = path.stat()
        except OSError:
            raise PluginMissing(plugin, self.settings.bin_dirs) from None
        stamp = (str(path), found.st_mtime_ns, found.st_size, found.st_ino)
        if (known := self._versions.get(stamp)) is not None:
            return known
        deadline = self.settings.query_deadline
        request = {"cniVersion": _versions.LATEST}
        raw = await self.call("VERSION", plugin, request, {}, deadline=deadline)
        try:
            answer = msgspec.json.decode(raw, type=_Version)
        except msgspec.DecodeError as error:
            raise ResultInvalid(f"CNI plugin {plugin}: VERSION: {error}") from None
        versions = frozenset(answer.supported_versions)
        self._versions = {k: v for k, v in self._versions.items() if k[0] != stamp[0]} | {stamp: versions}
        return versions

    async def call(
        self,
        command: str,
        plugin: str,
        request: Mapping[str, Any],
        environment: Mapping[str, str],
        *,
        deadline: float,
    ) -> bytes:
        """Execute a plugin and return what it prints.

        :param command: "ADD", "DEL", ...
        :param environment: CNI_* beside command and path.
        :param deadline: seconds, from when its turn has come.
        :raises PluginMissing: no such program.
        :raises PluginTimeout: killed at the deadline.
        :raises PluginFailed, PluginBusy: it answered with an error.
        """
        path = self.find(plugin)
        env = {
            **self._environment,
            "CNI_PATH": os.pathsep.join(self.settings.bin_dirs),
            **environment,
            "CNI_COMMAND": command,
        }
        step = f"CNI plugin {plugin}: {command}"
        network = str(request.get("name", ""))
        async with self._slot():
            with span(f"cni.{command.lower()}", plugin=plugin, network=network):
                try:
                    done = await process.run(
                        [path],
                        deadline=deadline,
                        step=step,
                        stdin=msgspec.json.encode(request),
                        env=env,
                        cwd="/",
                        check=False,
                        max_output=_MAX_OUTPUT,
                    )
                except ProcessTimeout as error:
                    raise PluginTimeout(error.message) from error
                except OSError as error:
                    # No memory, too many processes, a program that is being written.
                    raise PluginFailed(step, f"cannot run {path}: {error.strerror}") from error
                if done.returncode != 0:
                    raise _failure(step, done)
                return done.stdout

    async def end_orphans(self, sandbox_ids: Collection[str]) -> None:
        """Kill the plugins that a daemon which was killed left at work on pods, and wait for their end.

        An ADD that goes on would come after our DEL, and what it makes nobody would take back.
        """
        try:
            killed = await marked.kill(
                "CNI_CONTAINERID", sandbox_ids, _may_be_plugin, deadline=_ORPHAN_SECONDS
            )
        except TimeoutError:
            log.warning(
                "a CNI plugin of a former run does not end", extra={"sandboxes": sorted(sandbox_ids)}
            )
            return
        if killed:
            log.warning("killed CNI plugins of a former run", extra={"pids": [p.pid for p in killed]})

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        """One of the places of plugins that run at once; one that takes long waits for something and gives
        its place up, so that no number of hung plugins holds up other pods."""
        await self._free.acquire()
        held = True

        def give_up() -> None:
            nonlocal held
            if held:
                held = False
                self._free.release()

        timer = asyncio.get_running_loop().call_later(_SLOT_SECONDS, give_up)
        try:
            yield
        finally:
            timer.cancel()
            give_up()


def _may_be_plugin(pid: int) -> bool:
    """Whether a process is in a group that was made in a session of somebody else, as we start plugins.

    A server that a plugin left behind on purpose leads a session of its own.
    """
    return os.getpgid(pid) != os.getsid(pid)


def _failure(step: str, done: Completed) -> PluginFailed | PluginBusy:
    """The error that a plugin tells on stdout, or whatever it said when that is no error result."""
    try:
        told = msgspec.json.decode(done.stdout, type=_Error)
    except msgspec.DecodeError:
        told = _Error()
    if not told.msg:
        output = (done.stderr or done.stdout).decode(errors="replace").strip()
        return PluginFailed(step, f"{done.how}: {output[-2000:]}" if output else done.how, told.code)
    text = f"{told.msg}: {told.details}" if told.details else told.msg
    if told.code == _TRY_AGAIN:
        return PluginBusy(f"{step}: {text}", hint="the plugin asks to be tried again later")
    return PluginFailed(step, text, told.code)
