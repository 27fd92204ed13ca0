"""Exec and attach over SPDY/3.1, versions 1 to 4."""

from __future__ import annotations

from collections.abc import Sequence

from triptych_spdy import (
    Connection,
    DataReceived,
    Event,
    Limits,
    ProtocolError,
    ResetStatus,
    Role,
    StreamEnded,
    StreamOpened,
    StreamReset,
    find_header,
)

from triptych_streaming.errors import PeerFault
from triptych_streaming.protocol.channels import (
    Buffer,
    Channel,
    OutputRefused,
    RemoteEvent,
    SessionReady,
    StdinEnded,
    StdinReceived,
    StreamSet,
    Version,
)
from triptych_streaming.protocol.remotecommand import RemoteCommand
from triptych_streaming.protocol.resize import ResizeParser
from triptych_streaming.protocol.status import Outcome, status_message

_STREAM_TYPES = {channel.name.lower().encode(): channel for channel in Channel}
_LIMITS = Limits(streams=16, headers=64, header_bytes=1 << 16, control_bytes=1 << 16)


class SpdyRemoteCommand(RemoteCommand):
    """The server's side: one stream of the client for each channel, told apart by `streamtype`."""

    def __init__(self, streams: StreamSet, version: Version, protocol: str) -> None:
        self.name = f"SPDY/3.1 {protocol}"
        self._spdy = Connection(Role.SERVER, _LIMITS)
        self._version = version
        self._wanted = streams.expected(version)
        self._opened: dict[Channel, int] = {}
        self._channels: dict[int, Channel] = {}
        self._resize = ResizeParser()
        self._ready = False

    def start(self) -> Sequence[RemoteEvent]:
        return ()

    def receive(self, data: Buffer) -> Sequence[RemoteEvent]:
        try:
            events: Sequence[Event] = self._spdy.receive_data(data)
        except ProtocolError as error:
            raise PeerFault(str(error)) from error
        found: list[RemoteEvent] = []
        for event in events:
            if isinstance(event, DataReceived):
                self._data(event, found)
            elif isinstance(event, StreamOpened):
                self._open(event, found)
            elif isinstance(event, StreamEnded):
                if self._channels.get(event.stream_id) is Channel.STDIN and Channel.STDIN in self._wanted:
                    found.append(StdinEnded())
            elif isinstance(event, StreamReset):
                self._reset(event.stream_id, found)
        return found

    def take(self) -> list[Buffer]:
        return self._spdy.buffers_to_send()

    def probe(self) -> list[Buffer]:
        # SETTINGS of nothing: Kubernetes' clients drop any, and no other way to say nothing gets an answer.
        self._spdy.send_settings(())
        return self.take()

    def output(self, channel: Channel, data: Buffer) -> None:
        stream_id = self._opened.get(channel, 0)
        if self._spdy.can_send(stream_id):
            self._spdy.send_data(stream_id, data)

    def end_output(self, channel: Channel) -> None:
        stream_id = self._opened.get(channel)
        if stream_id is not None:
            self._spdy.end_stream(stream_id)

    def finish(self, outcome: Outcome) -> None:
        # Ends and status go before the resets: clients drop what a reset overtakes.
        self.end_output(Channel.STDOUT)
        self.end_output(Channel.STDERR)
        message = status_message(outcome, self._version)
        if message:
            self.output(Channel.ERROR, message)
        self.end_output(Channel.ERROR)
        for stream_id in self._spdy.open_streams:
            if self._channels.get(stream_id) not in (Channel.STDOUT, Channel.STDERR, Channel.ERROR):
                self._spdy.reset_stream(stream_id)
        self._spdy.goaway()

    def _open(self, event: StreamOpened, found: list[RemoteEvent]) -> None:
        stream_id = event.stream_id
        if not self._spdy.is_open(stream_id):
            return
        channel = _STREAM_TYPES.get(find_header(event.headers, b"streamtype") or b"")
        if channel is None or channel in self._opened or event.unidirectional:
            self._spdy.reset_stream(stream_id, ResetStatus.REFUSED_STREAM)
            return
        self._opened[channel] = stream_id
        self._channels[stream_id] = channel
        self._spdy.reply(stream_id)
        if not self._ready and self._wanted <= self._opened.keys():
            self._ready = True
            if self._version is Version.V1:
                # What clients of the unversioned protocol were built against.
                self._spdy.reset_stream(self._opened[Channel.ERROR])
                if Channel.STDIN in self._opened:
                    self._spdy.end_stream(self._opened[Channel.STDIN])
            found.append(SessionReady())

    def _data(self, event: DataReceived, found: list[RemoteEvent]) -> None:
        channel = self._channels.get(event.stream_id)
        if channel is Channel.STDIN and channel in self._wanted:
            found.append(StdinReceived(event.data))
        elif channel is Channel.RESIZE:
            found.extend(self._resize.feed(event.data))

    def _reset(self, stream_id: int, found: list[RemoteEvent]) -> None:
        channel = self._channels.get(stream_id)
        if channel is Channel.STDIN and channel in self._wanted:
            found.append(StdinEnded())
        elif channel in (Channel.STDOUT, Channel.STDERR):
            found.append(OutputRefused(channel))
