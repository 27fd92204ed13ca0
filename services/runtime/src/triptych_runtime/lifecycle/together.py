"""Several pieces of work at once, whose failure is one error and not a group of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any


async def together(*works: Coroutine[Any, Any, object]) -> None:
    """Run coroutines at once. The first that fails ends the others.

    :raises Exception: what the first one raised, once all have ended.
    """
    try:
        async with asyncio.TaskGroup() as group:
            for work in works:
                group.create_task(work)
    except BaseExceptionGroup as errors:
        raise _first(errors) from None


async def each(works: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Run coroutines at once, each to its end whatever becomes of the others.

    :raises Exception: what the first of them (in their order) raised.
    """
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
