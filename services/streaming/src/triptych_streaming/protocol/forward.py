"""The face that port-forward sessions show to their driver, whatever the transport."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass

from triptych_streaming.protocol.channels import Buffer, ClientClosed


@dataclass(frozen=True, slots=True)
class ForwardOpened:
    """The client wants a connection to `port`; answer by data, or by `PortForward.fail`."""

    pair: str
    port: int


@dataclass(frozen=True, slots=True)
class ForwardReceived:
    """:param data: valid until the next call of `receive`."""

    pair: str
    data: Buffer


@dataclass(frozen=True, slots=True)
class ForwardEnded:
    """The client sends no more on this connection, but may still read."""

    pair: str


@dataclass(frozen=True, slots=True)
class ForwardDropped:
    """The client gave the connection up."""

    pair: str


ForwardEvent = ForwardOpened | ForwardReceived | ForwardEnded | ForwardDropped | ClientClosed


class PortForward(abc.ABC):
    """One client's port-forward session: any number of connections ("pairs")."""

    name: str
    half_closes: bool = True
    """Whether one direction of a connection can end before the other."""

    @abc.abstractmethod
    def start(self) -> Sequence[ForwardEvent]:
        """Begin, once the handshake is answered."""

    @abc.abstractmethod
    def receive(self, data: Buffer, now: float) -> Sequence[ForwardEvent]:
        """Take bytes of the client.

        :param now: monotonic seconds, for the age of half-made pairs.
        :raises PeerFault: the session cannot go on.
        """

    @abc.abstractmethod
    def expire(self, now: float) -> None:
        """Drop pairs whose second stream did not come in time."""

    @abc.abstractmethod
    def take(self) -> list[Buffer]:
        """Bytes that wait to be sent. Call it after each of the other methods."""

    @abc.abstractmethod
    def probe(self) -> list[Buffer]:
        """Bytes to send now that mean nothing: whether the client lives, and that this side does."""

    @abc.abstractmethod
    def output(self, pair: str, data: Buffer) -> None:
        """Send what the port answered."""

    @abc.abstractmethod
    def end_output(self, pair: str) -> None:
        """The port sends no more."""

    @abc.abstractmethod
    def fail(self, pair: str, message: str) -> None:
        """Tell why there is no connection (any more), and drop the pair."""

    @abc.abstractmethod
    def break_off(self, pair: str, message: str) -> None:
        """The port broke the connection off: break off the pair; tell why where nothing else can be told."""

    @abc.abstractmethod
    def forget(self, pair: str) -> None:
        """Nothing more can be said in either direction: close what is left of the pair."""

    @abc.abstractmethod
    def finish(self) -> None:
        """End the session."""

    def confirmed(self, data: Buffer) -> bool:
        """After `finish`: whether `data` of the client says that it waits for the server to hang up."""
        return False
