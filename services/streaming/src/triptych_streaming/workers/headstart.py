"""OCI runtimes that are started when an exec session is opened, and wait for its client.

The client comes within milliseconds, and then finds the runtime loaded and waiting for the process document:
see `ociexec`. It is a bet: a session that another streaming process claims, or nobody, has cost a runtime
that is ended unused, and a client that finds none has its own started.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from triptych_errors import TriptychError
from triptych_linux.process import shielded
from triptych_service.tasks import Tasks

from triptych_streaming.records import ExecSession, Waiting
from triptych_streaming.workers.exec import ExecBackend

log = logging.getLogger(__name__)

_MOST = 16
"""Runtimes that wait at once; sessions beyond that get no head start."""
_END_SECONDS = 30.0


@dataclass(slots=True)
class _Held:
    """A runtime that waits until it is `over`: taken, or of no use."""

    backend: ExecBackend
    taken: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)


class HeadStarts:
    """The runtimes that wait, by the IDs of their sessions.

    :param make: makes the backend of a session.
    :param seconds: gives how long they wait; at 0 there are none.
    """

    def __init__(
        self, tasks: Tasks, make: Callable[[ExecSession], ExecBackend], seconds: Callable[[], float]
    ) -> None:
        self._tasks = tasks
        self._make = make
        self._seconds = seconds
        self._held: dict[str, _Held] = {}

    def begin(self, waiting: Waiting) -> None:
        """Start the runtime of a session, behind the answer to who opened it."""
        session, seconds = waiting.session, self._seconds()
        if isinstance(session, ExecSession) and seconds > 0 and len(self._held) < _MOST:
            held = self._held[waiting.id] = _Held(self._make(session))
            self._tasks.create_task(self._hold(waiting.id, held, seconds), name="head start")

    def take(self, waiting: Waiting) -> ExecBackend | None:
        """The backend of a claimed session, prepared; the caller closes it. None when there is none."""
        held = self._held.pop(waiting.id, None)
        if held is None:
            return None
        held.taken = held.backend.prepared
        held.over.set()
        return held.backend if held.taken else None

    async def _hold(self, name: str, held: _Held, seconds: float) -> None:
        try:
            await held.backend.prepare()
            async with asyncio.timeout(seconds):
                await held.over.wait()
        except TimeoutError:
            log.debug("nobody came for an OCI runtime that waited", extra={"session": name})
        except (TriptychError, OSError) as error:
            # Whoever claims the session meets that himself, and is told.
            log.debug("no head start", extra={"session": name, "error": str(error)})
        finally:
            self._held.pop(name, None)
            if not held.taken:
                await self._close(name, held)

    async def _close(self, name: str, held: _Held) -> None:
        try:
            await shielded(held.backend.close(), _END_SECONDS)
        except OSError as error:  # TimeoutError is one: a runtime that the kernel does not let die
            log.warning(
                "an OCI runtime that waited did not end",
                extra={"session": name, "error": str(error) or "no end"},
            )
