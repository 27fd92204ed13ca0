"""Containers that a checkpoint holds still: marked on tmpfs, so that they go on however the checkpoint ends.

Both the pause of CheckpointPod and CRIU's own freezing outlast a daemon that is killed. Only what is marked
is resumed: a container that somebody else paused stays paused.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from triptych_linux.process import shielded

from triptych_runtime.ociruntime import OciRuntime

#: Seconds to see whether a container is paused, and to resume it.
RESUME_DEADLINE = 60.0


class Pauses:
    """The marks: one empty file a container.

    :param directory: on tmpfs; made at the first mark.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextlib.asynccontextmanager
    async def held(self, runtime: OciRuntime, container_id: str) -> AsyncIterator[None]:
        """The container may be paused or frozen within the context; afterwards it runs, if it ran before.

        :raises RuntimeFailed: at the end, when it cannot be resumed; the mark stays for the next start.
        """
        marked = (self._directory / container_id).exists()
        if not marked and await _paused(runtime, container_id):
            yield
            return
        await asyncio.to_thread(self._mark, container_id)
        try:
            yield
        finally:
            await shielded(self.resume(runtime, container_id), RESUME_DEADLINE)

    async def resume(self, runtime: OciRuntime, container_id: str) -> None:
        """Resume a container, which may run already or be gone, and take the mark away."""
        if await _paused(runtime, container_id):
            await runtime.resume(container_id)
        await asyncio.to_thread(self.forget, container_id)

    def marked(self) -> list[str]:
        """The containers that a daemon held when it ended; blocking, one directory."""
        try:
            return sorted(entry.name for entry in self._directory.iterdir())
        except FileNotFoundError:
            return []

    def forget(self, container_id: str) -> None:
        """Take a mark away; blocking."""
        (self._directory / container_id).unlink(missing_ok=True)

    def _mark(self, container_id: str) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self._directory / container_id).touch()


async def _paused(runtime: OciRuntime, container_id: str) -> bool:
    state = await runtime.state(container_id)
    return state is not None and state.get("status") == "paused"
