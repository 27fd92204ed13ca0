"""The outputs of one session: all are read while the client takes them, and stop when it lags."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from triptych_streaming.protocol.channels import Channel
from triptych_streaming.workers.backend import Backend, Output
from triptych_streaming.workers.pump import Source


class Outputs:
    """Reads what a backend has to say.

    :param on_data: gets each piece, as a view that is valid during the call only.
    :param on_end: called when a channel has ended.
    :ivar all_read: done when every output of the started process has ended.
    """

    def __init__(
        self, on_data: Callable[[Channel, memoryview], None], on_end: Callable[[Channel], None]
    ) -> None:
        self.all_read: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._on_data = on_data
        self._on_end = on_end
        self._sources: dict[Channel, Source] = {}
        self._refused: set[Channel] = set()
        self._complete = False
        self._backend: Backend | None = None

    def add(self, backend: Backend, *, complete: bool) -> None:
        """Take on the outputs that were not there before; they rest until `resume`.

        :param complete: no more will come: the process was started.
        """
        self._backend = backend
        for channel, output in backend.outputs.items():
            if channel not in self._sources:
                self._sources[channel] = self._source(channel, output)
        self._complete = complete
        for channel in self._refused:
            self.refuse(channel)
        self._check()

    def _source(self, channel: Channel, output: Output) -> Source:
        split, on_data = output.split, self._on_data
        if split is None:
            return Source(
                output.fd, output.read, lambda data: on_data(channel, data), lambda: self._ended(channel)
            )
        return Source(
            output.fd,
            output.read,
            lambda packet: on_data(*split(packet)),
            lambda: self._ended(Channel.STDOUT, Channel.STDERR),
        )

    def _ended(self, *channels: Channel) -> None:
        for channel in channels:
            self._on_end(channel)
        self._check()

    def _check(self) -> None:
        if self._complete and self.ended and not self.all_read.done():
            self.all_read.set_result(None)

    @property
    def ended(self) -> bool:
        """Whether nothing more comes."""
        return all(source.ended for source in self._sources.values())

    def pause(self) -> None:
        for source in self._sources.values():
            source.pause()

    def resume(self) -> None:
        for source in self._sources.values():
            source.resume()

    def refuse(self, channel: Channel) -> None:
        """The client wants no more of this output; its writer shall notice."""
        self._refused.add(channel)
        source = self._sources.get(channel)
        if source is not None and self._backend is not None and self._backend.separate_outputs:
            source.close()
            self._backend.close_output(channel)

    def drain(self) -> None:
        """Read what is there, and no more after that; what a pause cuts short stays to be drained."""
        for source in self._sources.values():
            if not source.ended and source.drain():
                source.close()

    def close(self) -> None:
        """Stop for good."""
        for source in self._sources.values():
            source.close()
