"""The init process of a pod that shares its PID namespace: reaps orphans, and holds the namespace."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import triptych_errors
import triptych_linux
from triptych_linux import credentials, initfilter, marked, namespaces, pidfd, process, unprivileged
from triptych_linux.errors import ProcessFailed, ProcessTimeout
from triptych_linux.namespaces import Namespace
from triptych_linux.pidfd import ProcessIdentity

from triptych_runtime.lifecycle import deadline, fault
from triptych_runtime.namespaces import _make, _pause
from triptych_runtime.namespaces.errors import InitFailed
from triptych_runtime.namespaces.model import InitProcess, PinnedNamespaces, UserMappings
from triptych_runtime.namespaces.settings import NamespaceSettings

Place = Callable[[int], Awaitable[None]]
_NOBODY = 65535


class PodInit:
    """Starts, finds and ends inits. They outlive the daemon; their pin is `<state>/ns/<id>/pid`.

    :param ended: told the ID of a pod sandbox whose init has ended, whoever ended it.
    """

    def __init__(
        self,
        state_dir: Path,
        settings: NamespaceSettings | None = None,
        *,
        ended: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._pins = state_dir / "ns"
        # An empty directory that each init's own mount namespace has its root mounted on.
        self._empty = state_dir / "empty"
        self._settings = settings or NamespaceSettings()
        self._ended = ended
        self._watched: set[ProcessIdentity] = set()

    async def start(
        self, pinned: PinnedNamespaces, place: Place, *, users: UserMappings | None = None
    ) -> InitProcess:
        """Start the init of a pod in new PID and mount namespaces and the pod's pinned ones.

        :param place: puts the process of a PID into the pod's cgroup.
        :param users: the mappings of the pod's user namespace.
        :raises InitFailed: naming the step; nothing stays.
        """
        step = f"start the init of pod sandbox {pinned.sandbox_id}"
        seconds = self._settings.deadline + self._settings.place_deadline
        try:
            return await process.shielded(self._start(step, pinned, place, users), seconds)
        except BaseException as error:
            # It may be born, and stand nowhere yet. Where it does not end, the undo of its pod tries again.
            with contextlib.suppress(InitFailed, OSError):
                await process.shielded(self.discard(pinned.sandbox_id), 2 * self._settings.deadline)
            if isinstance(error, TimeoutError):
                raise InitFailed(f"{step}: no end after {seconds:g} s") from None
            if isinstance(error, OSError):
                raise InitFailed(f"{step}: {error}") from error
            raise

    async def _start(
        self, step: str, pinned: PinnedNamespaces, place: Place, users: UserMappings | None
    ) -> InitProcess:
        pin = self._pin(pinned.sandbox_id)
        self._empty.mkdir(mode=0o700, exist_ok=True)
        pid = await self._born(step, pinned, _unprivileged(users))
        fault("run_pod_sandbox.init_born")
        identity = ProcessIdentity.of(pid)
        try:
            async with deadline(self._settings.place_deadline, "place it into its cgroup"):
                await place(pid)
        except triptych_errors.TriptychError as error:
            raise InitFailed(f"{step}: {error}") from error
        await asyncio.to_thread(namespaces.pin, Namespace.PID, pin, task=str(pid))
        self._watch(pinned.sandbox_id, identity)
        return InitProcess(identity.pid, identity.start_ticks)

    async def _born(self, step: str, pinned: PinnedNamespaces, user: int) -> int:
        paths = [str(p) for p in (pinned.user, pinned.ipc, pinned.uts, pinned.net) if p is not None]
        program, root = self._settings.init, str(self._empty)
        sandbox_id = pinned.sandbox_id
        if pinned.user is None:
            birth = namespaces.in_thread(lambda: _born_here(sandbox_id, program, root, paths, user))
            # A thread goes on when nobody waits for it any more, and what it bears then is to be ended.
            task = asyncio.ensure_future(birth)
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                task.add_done_callback(_end_late)
                raise
        return await self._born_in_user_namespace(step, [sandbox_id, str(user), program, root, *paths])

    async def _born_in_user_namespace(self, step: str, arguments: list[str]) -> int:
        """A helper process enters the user namespace and leaves the init as an orphan."""
        places = {
            str(Path(module.__file__ or "").parents[1]) for module in (triptych_linux, triptych_errors)
        }
        argv = [sys.executable, "-I", "-S", _pause.__file__, os.pathsep.join(places), *arguments]
        try:
            done = await process.run(argv, deadline=self._settings.deadline, step=step)
        except (ProcessFailed, ProcessTimeout) as error:
            raise InitFailed(str(error)) from error
        return int(done.stdout)

    async def discard(self, sandbox_id: str) -> None:
        """Kill and unpin the init of a pod, also one that never came to be pinned or placed. Idempotent.

        :raises InitFailed: when it is still there at the deadline (a process in D state).
        """
        limit = self._settings.deadline
        try:
            killed = await marked.kill(_pause.MARK, (sandbox_id,), _may_be_init, deadline=limit)
        except TimeoutError:
            raise InitFailed(f"init of pod sandbox {sandbox_id}: still there after SIGKILL") from None
        for identity in killed:
            _reap(identity.pid)
        await asyncio.to_thread(namespaces.unpin, self._pin(sandbox_id))

    def _pin(self, sandbox_id: str) -> Path:
        return self._pins / sandbox_id / _make.FILES[Namespace.PID]

    def resume(self, sandbox_id: str, init: InitProcess) -> bool:
        """Take up an init again after a restart of the daemon; returns whether it still runs."""
        try:
            self._watch(sandbox_id, init.identity)
        except ProcessLookupError:
            return False
        return True

    async def stop(self, init: InitProcess) -> None:
        """Kill an init, and with it every process of its PID namespace; waits for its end. Idempotent.

        :raises InitFailed: when it is still there at the deadline (a process in D state).
        """
        try:
            async with asyncio.timeout(self._settings.deadline):
                await pidfd.kill(init.identity)
        except TimeoutError:
            raise InitFailed(f"init {init.pid}: still there after SIGKILL") from None

    def _watch(self, sandbox_id: str, identity: ProcessIdentity) -> None:
        """:raises ProcessLookupError: when it has ended already."""
        if identity in self._watched:
            return

        def ended() -> None:
            self._watched.discard(identity)
            self._ended(sandbox_id)

        _when_ended(identity, ended)
        self._watched.add(identity)


def _born_here(sandbox_id: str, program: str, root: str, paths: list[str], user: int) -> int:
    """Start an init from the calling thread, which must be one made for it."""
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        _pause.enter(program, root, paths)
        with credentials.keep_dumpable():
            unprivileged.become(user, user)
            initfilter.confine()
            # Not through triptych_linux.process: it must be a child of this very thread.
            mark = {_pause.MARK: sandbox_id}
            child = subprocess.Popen(
                _pause.ARGV, stdin=null, stdout=null, stderr=null, env=mark, start_new_session=True
            )
    finally:
        os.close(null)
    # `_watch` reaps it; a Popen that goes away would try to as well.
    child.returncode = 0
    return child.pid


def _end_late(birth: asyncio.Task[int]) -> None:
    if birth.cancelled() or birth.exception() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        _when_ended(ProcessIdentity.of(birth.result()), lambda: None)
        os.kill(birth.result(), signal.SIGKILL)


def _when_ended(identity: ProcessIdentity, tell: Callable[[], None]) -> None:
    """Reap an init when it ends, where it is our child (it is not after a restart), and tell of it.

    :raises ProcessLookupError: when it has ended already.
    """
    fd = identity.open()
    loop = asyncio.get_running_loop()

    def ended() -> None:
        loop.remove_reader(fd)
        os.close(fd)
        _reap(identity.pid)
        tell()

    loop.add_reader(fd, ended)


def _reap(pid: int) -> None:
    """Take the exit of an init that is our child; it is not after a restart, or in a user namespace."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def _may_be_init(pid: int) -> bool:
    return Path("/proc", str(pid), "comm").read_text().rstrip("\n") == _pause.NAME


def _unprivileged(users: UserMappings | None) -> int:
    """Whom an init runs as: the user of the customary pause images, or root where that is not mapped."""
    if users is None:
        return _NOBODY
    both = (users.uids, users.gids)
    mapped = all(any(0 <= _NOBODY - m.container_id < m.length for m in side) for side in both)
    return _NOBODY if mapped else 0


__all__ = ["PodInit"]
