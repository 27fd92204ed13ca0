"""Two ends talk at random, in pieces cut at random; and an end is fed what no end would send."""

from __future__ import annotations

import struct

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from triptych_spdy import (
    Connection,
    DataReceived,
    Limits,
    ProtocolError,
    Role,
    StreamEnded,
    StreamOpened,
    StreamReset,
)


class Peer:
    """One end, with what it was told and what it should have been told per stream."""

    def __init__(self, role: Role, flow: bool) -> None:
        self.connection = Connection(role, flow_control=flow)
        self.seen: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self.sent: dict[int, bytearray] = {}
        self.finished: set[int] = set()
        self.reset: set[int] = set()
        self.wire = bytearray()

    def flush(self) -> None:
        self.wire += self.connection.data_to_send()

    def take(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            if isinstance(event, StreamOpened):
                if self.connection.is_open(event.stream_id):
                    self.connection.reply(event.stream_id)
                self.sent.setdefault(event.stream_id, bytearray())
            elif isinstance(event, DataReceived):
                self.seen.setdefault(event.stream_id, bytearray()).extend(event.data)
                self.connection.acknowledge(event.stream_id, len(event.data))
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
            elif isinstance(event, StreamReset):
                assert event.remote, event
                self.reset.add(event.stream_id)


class Conversation(RuleBasedStateMachine):
    flow = False

    def __init__(self) -> None:
        super().__init__()
        self.ends = (Peer(Role.CLIENT, self.flow), Peer(Role.SERVER, self.flow))

    @rule(side=st.integers(0, 1), headers=st.lists(st.tuples(st.just(b"n"), st.just(b"v")), max_size=3))
    def open(self, side: int, headers: list[tuple[bytes, bytes]]) -> None:
        end = self.ends[side]
        end.sent[end.connection.open_stream(headers)] = bytearray()

    @rule(side=st.integers(0, 1), pick=st.integers(0), data=st.binary(max_size=300), fin=st.booleans())
    def send(self, side: int, pick: int, data: bytes, fin: bool) -> None:
        end = self.ends[side]
        ready = [each for each in end.connection.open_streams if end.connection.can_send(each)]
        if not ready:
            return
        stream_id = ready[pick % len(ready)]
        data = data[: end.connection.send_window(stream_id)]
        end.connection.send_data(stream_id, data, fin=fin)
        end.sent[stream_id] += data
        if fin:
            end.finished.add(stream_id)

    @rule(side=st.integers(0, 1), pick=st.integers(0))
    def reset(self, side: int, pick: int) -> None:
        end = self.ends[side]
        if end.connection.open_streams and pick % 4 == 0:
            stream_id = end.connection.open_streams[pick % len(end.connection.open_streams)]
            end.connection.reset_stream(stream_id)
            end.reset.add(stream_id)

    @rule(side=st.integers(0, 1))
    def ping(self, side: int) -> None:
        self.ends[side].connection.ping()

    @rule(side=st.integers(0, 1), size=st.integers(1, 400))
    def deliver(self, side: int, size: int) -> None:
        source, target = self.ends[side], self.ends[1 - side]
        source.flush()
        piece, source.wire = bytes(source.wire[:size]), source.wire[size:]
        target.take(piece)

    @invariant()
    def what_arrived_was_sent(self) -> None:
        for source, target in (self.ends, self.ends[::-1]):
            for stream_id, data in target.seen.items():
                assert source.sent[stream_id].startswith(data)

    def teardown(self) -> None:
        for _ in range(4):
            for side in (0, 1):
                source = self.ends[side]
                source.flush()
                self.deliver(side, max(1, len(source.wire)))
        for source, target in (self.ends, self.ends[::-1]):
            reset = source.reset | target.reset
            for stream_id, data in source.sent.items():
                if stream_id not in reset:
                    assert target.seen.get(stream_id, b"") == data
                    assert (stream_id in target.ended) == (stream_id in source.finished)
        assert set(self.ends[0].connection.open_streams) == set(self.ends[1].connection.open_streams)


class ControlledConversation(Conversation):
    flow = True


TestConversation = Conversation.TestCase
TestControlledConversation = ControlledConversation.TestCase
TestConversation.settings = TestControlledConversation.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None
)


def valid_wire() -> bytes:
    client = Connection(Role.CLIENT)
    for kind in (b"error", b"stdin", b"stdout"):
        client.open_stream([(b"streamtype", kind)])
    client.send_data(3, b"echo hello\n")
    client.ping()
    client.end_stream(3)
    client.reset_stream(5)
    client.goaway()
    return client.data_to_send()


WIRE = valid_wire()


def survive(data: bytes, cut: int, flow: bool) -> None:
    limits = Limits(streams=4, headers=8, header_bytes=1024, control_bytes=4096, stream_faults=5)
    server = Connection(Role.SERVER, limits, flow_control=flow)
    try:
        for start in range(0, len(data), cut):
            for event in server.receive_data(data[start : start + cut]):
                if isinstance(event, StreamOpened) and server.is_open(event.stream_id):
                    server.reset_stream(event.stream_id) if event.unidirectional else server.reply(
                        event.stream_id
                    )
            assert len(server._receiver._reader._partial) <= 4096 + 8
            assert len(server.open_streams) <= 4
    except ProtocolError:
        assert server.data_to_send()[-16:-12] == bytes.fromhex("80030007")


@given(st.binary(max_size=400), st.integers(1, 64), st.booleans())
@settings(max_examples=300, deadline=None)
def test_noise(data: bytes, cut: int, flow: bool) -> None:
    survive(data, cut, flow)


@given(
    st.lists(st.tuples(st.integers(0, len(WIRE) - 1), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(1, 64),
    st.booleans(),
)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_valid_bytes_with_some_broken(changes: list[tuple[int, int]], cut: int, flow: bool) -> None:
    data = bytearray(WIRE)
    for position, value in changes:
        data[position] = value
    survive(bytes(data), cut, flow)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 255), st.binary(max_size=24)), max_size=20))
@settings(max_examples=300, deadline=None)
def test_frames_of_noise(parts: list[tuple[int, int, bytes]]) -> None:
    survive(
        b"".join(
            struct.pack(">HHI", 0x8003, kind, flags << 24 | len(body)) + body for kind, flags, body in parts
        ),
        1 << 20,
        False,
    )


@given(st.integers(1, 200))
def test_any_cut_gives_the_same_events(cut: int) -> None:
    def run(size: int) -> list[object]:
        server = Connection(Role.SERVER)
        found: list[object] = []
        payload = bytearray()
        for start in range(0, len(WIRE), size):
            for event in server.receive_data(WIRE[start : start + size]):
                if isinstance(event, DataReceived):
                    payload += event.data
                else:
                    found.append(event)
        return [*found, bytes(payload)]

    assert run(cut) == run(len(WIRE))
