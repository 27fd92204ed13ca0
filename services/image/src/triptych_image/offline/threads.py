"""File operations off the event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(call: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call in a thread, which ends before a cancelled caller goes on.

    So the caller may close the descriptors that it gave: their numbers may be others' a moment later.
    """
    calling = asyncio.ensure_future(asyncio.to_thread(call, *arguments, **named))
    try:
        return await asyncio.shield(calling)
    except asyncio.CancelledError:
        await asyncio.wait([calling])
        raise


async def open_in_thread(call: Callable[P, int], *arguments: P.args, **named: P.kwargs) -> int:
    """The descriptor that a call in a thread opens; closed if the caller was cancelled meanwhile."""
    opening = asyncio.ensure_future(asyncio.to_thread(call, *arguments, **named))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise


def _close(opened: asyncio.Future[int]) -> None:
    if not opened.cancelled() and opened.exception() is None:
        os.close(opened.result())
