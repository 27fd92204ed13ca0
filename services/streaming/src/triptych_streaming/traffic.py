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

    def since(self, before: Traffic) -> Traffic:
        """What was moved since it was as `before`, which is as now from here on."""
        moved = Traffic(self.received - before.received, self.sent - before.sent)
        before.received, before.sent = self.received, self.sent
        return moved
