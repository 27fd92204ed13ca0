"""Deadlines that say what they were for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from triptych_runtime.errors import OperationTimeout


@asynccontextmanager
async def deadline(seconds: float, what: str) -> AsyncIterator[None]:
    """Cancel the block after `seconds`.

    :raises OperationTimeout: naming `what`, when the block ends because of that.
    """
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise OperationTimeout(f"{what}: no end after {seconds:g} s") from None
