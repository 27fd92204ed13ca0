"""Undoing the steps of a create that failed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType

from triptych_linux.process import shielded

log = logging.getLogger(__name__)

#: Seconds for one step of cleaning up.
STEP_DEADLINE = 30.0


class Undo:
    """A stack of steps to undo; leaving the block by an exception runs it, newest first.

    Each undo step has its own deadline, runs even when the caller was cancelled, and a failure of one
    does not stop the others: what remains is found by the reconciliation at the next start.
    """

    def __init__(self, subject: str) -> None:
        self._subject = subject
        self._steps: list[tuple[str, Callable[[], Awaitable[object]]]] = []

    def push(self, name: str, step: Callable[[], Awaitable[object]]) -> None:
        """Register how to undo what was just begun."""
        self._steps.append((name, step))

    async def __aenter__(self) -> Undo:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._steps.clear()
            return
        await shielded(self._run(), STEP_DEADLINE * (len(self._steps) + 1))

    async def _run(self) -> None:
        while self._steps:
            name, step = self._steps.pop()
            try:
                async with asyncio.timeout(STEP_DEADLINE):
                    await step()
            except Exception as error:
                log.warning(
                    "undo step failed", extra={"subject": self._subject, "step": name, "error": repr(error)}
                )
