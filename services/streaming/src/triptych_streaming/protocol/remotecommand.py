"""The face that exec and attach sessions show to their driver, whatever the transport."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from triptych_streaming.protocol.channels import Buffer, Channel, RemoteEvent
from triptych_streaming.protocol.status import Outcome


class RemoteCommand(abc.ABC):
    """One client's exec or attach session, by events and bytes."""

    name: str
    """The negotiated protocol, for listings: "SPDY/3.1 v4.channel.k8s.io"."""

    @abc.abstractmethod
    def start(self) -> Sequence[RemoteEvent]:
        """Begin, once the handshake is answered; bytes may wait in `take` then."""

    @abc.abstractmethod
    def receive(self, data: Buffer) -> Sequence[RemoteEvent]:
        """Take bytes of the client. Events with data must be used before the next call.

        :raises PeerFault: the session cannot go on.
        """

    @abc.abstractmethod
    def take(self) -> list[Buffer]:
        """Bytes that wait to be sent, in order. Call it after each of the other methods."""

    @abc.abstractmethod
    def probe(self) -> list[Buffer]:
        """Bytes to send now that mean nothing: whether the client lives, and that this side does."""

    @abc.abstractmethod
    def output(self, channel: Channel, data: Buffer) -> None:
        """Send output; dropped when the client does not want that channel."""

    @abc.abstractmethod
    def end_output(self, channel: Channel) -> None:
        """Say that no more comes on STDOUT or STDERR."""

    @abc.abstractmethod
    def finish(self, outcome: Outcome) -> None:
        """Close what is open, tell the outcome, and end the session."""

    def confirmed(self, data: Buffer) -> bool:
        """After `finish`: whether `data` of the client says that it waits for the server to hang up."""
        return False
