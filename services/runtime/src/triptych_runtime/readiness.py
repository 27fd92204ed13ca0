"""How far the daemon has come since its start."""

from __future__ import annotations

import asyncio
import contextlib

#: Seconds that a read waits for the reconciliation before it tells what the records say.
_PATIENCE = 3.0


class Readiness:
    """Two gates: the records are loaded; what they say was reconciled with the kernel."""

    def __init__(self) -> None:
        self._loaded = asyncio.Event()
        self._reconciled = asyncio.Event()

    async def loaded(self) -> None:
        """Wait until reads can be answered.

        They would rather tell what the kernel says than what was written down before a crash, but one item
        that is slow to reconcile must not silence the node.
        """
        if self._reconciled.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._reconciled.wait()
        await self._loaded.wait()

    async def reconciled(self) -> None:
        """Wait until changes can be made."""
        if not self._reconciled.is_set():
            await self._reconciled.wait()

    def set_loaded(self) -> None:
        self._loaded.set()

    def set_reconciled(self) -> None:
        self._loaded.set()
        self._reconciled.set()
