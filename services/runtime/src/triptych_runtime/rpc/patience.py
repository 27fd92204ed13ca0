"""How long an RPC may wait for another daemon."""

from __future__ import annotations

import grpc

_ANSWER_SECONDS = 0.2
"""For the answer's way back: a caller that gives up first sees a deadline, and not who was down."""


def patience(context: grpc.aio.ServicerContext[object, object], seconds: float) -> float:
    """`seconds`, or less where the caller waits less."""
    remaining = context.time_remaining()
    if remaining is None:
        return seconds
    return min(seconds, max(remaining - _ANSWER_SECONDS, remaining / 2))
