"""What exec and attach have in common behind the protocol."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from triptych_streaming.protocol.channels import Channel
from triptych_streaming.protocol.status import Outcome
from triptych_streaming.workers.pump import Read, Write


@dataclass(frozen=True, slots=True)
class Output:
    """Where output comes from: a descriptor to watch and how to read it.

    `split` gives a piece's channel, where one descriptor carries several.
    """

    fd: int
    read: Read
    split: Callable[[memoryview], tuple[Channel, memoryview]] | None = None


@dataclass(frozen=True, slots=True)
class Input:
    """Where input goes: a descriptor to watch, how to write, and how to say that no more comes."""

    fd: int
    write: Write
    end: Callable[[], None]


class Backend(abc.ABC):
    """A process with its streams: prepared, started, waited for or hung up, and closed in any case."""

    shared: bool = False
    """Whether others wait when this client's output is not read."""

    @abc.abstractmethod
    async def prepare(self) -> None:
        """Do what can be done before the client has all its streams. The process must not run yet.

        :raises TriptychError: it cannot be started.
        """

    @abc.abstractmethod
    async def start(self) -> None:
        """Let the process run, once prepared; it may have ended when this returns.

        :raises TriptychError: it was not started.
        """

    @property
    @abc.abstractmethod
    def outputs(self) -> Mapping[Channel, Output]:
        """By channel; an output that is split stands under STDOUT. Some are there before the start."""

    @property
    @abc.abstractmethod
    def input(self) -> Input | None:
        """None when the session has no stdin. For a started process."""

    @abc.abstractmethod
    def resize(self, width: int, height: int) -> None:
        """Set the terminal's size; without a terminal nothing happens."""

    @property
    @abc.abstractmethod
    def separate_outputs(self) -> bool:
        """Whether one output can be closed without the others, and without the input."""

    @abc.abstractmethod
    def close_output(self, channel: Channel) -> None:
        """Nobody reads this output any more: its writer shall notice. Only for separate outputs."""

    @abc.abstractmethod
    async def wait(self) -> Outcome:
        """Wait for the process's end. Its last output may still be unread."""

    @abc.abstractmethod
    async def hang_up(self, seconds: float) -> Outcome:
        """The client is gone: close the streams, and after `seconds` end what does not end by itself."""

    @abc.abstractmethod
    async def close(self) -> None:
        """Give back what it holds; what was prepared and not started is ended. Repeatable."""
