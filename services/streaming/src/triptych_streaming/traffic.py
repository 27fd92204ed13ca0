"""What a session has moved so far."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Traffic:
    """Payload bytes, without the protocol's own.

    :ivar received: from the client.
    :ivar sent: to the client.
    """

    received: int = 0
    sent: int = 0
