"""How far the daemon has come since its start."""

from __future__ import annotations

import asyncio


class Readiness:
    """Two gates: the records are loaded; what they say was reconciled with the kernel."""

    def __init__(self) -> None:
        self._loaded = asyncio.Event()
        self._reconciled = asyncio.Event()

    async def loaded(self) -> None:
        """Wait until reads can be answered."""
        if not self._loaded.is_set():
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
