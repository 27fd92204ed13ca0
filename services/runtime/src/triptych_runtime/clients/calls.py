"""A call to another daemon: its errors as ours, its absence as UNAVAILABLE with what to start."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import grpc
import triptych_errors
from triptych_errors import Code, TriptychError

from triptych_runtime.errors import ServiceDown

T = TypeVar("T")

_BY_CODE: dict[int, type[TriptychError]] = {
    int(cls.code): cls
    for cls in (getattr(triptych_errors, name) for name in triptych_errors.__all__)
    if isinstance(cls, type) and issubclass(cls, TriptychError) and cls is not TriptychError
}


async def call(
    work: Awaitable[T], *, daemon: str, socket: str, step: str, unreachable_at_deadline: bool = False
) -> T:
    """Await an RPC.

    :param unreachable_at_deadline: the call waits for a daemon that is down, so its deadline means that.
    :raises ServiceDown: when the daemon does not answer.
    :raises TriptychError: of the code that it answered with, and its own message unchanged, so that a
        reason string of the CRI stays in front.
    """
    try:
        return await work
    except grpc.aio.AioRpcError as error:
        code = error.code().value[0]
        detail = error.details() or ""
        down = code == Code.UNAVAILABLE and not detail.startswith("RegistryUnavailable")
        late = code == Code.DEADLINE_EXCEEDED
        if down or (unreachable_at_deadline and late):
            raise ServiceDown(daemon, socket, step, detail) from error
        if late:
            detail = f"{step}: {daemon} on {socket} gave no answer in time: {detail}"
        raise _BY_CODE.get(code, triptych_errors.Unknown)(detail) from error
