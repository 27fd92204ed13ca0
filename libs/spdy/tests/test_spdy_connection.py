"""The rules of a connection, one by one, on bytes written out by hand where that shows the wire."""

import struct

import pytest
from triptych_spdy import (
    Connection,
    DataReceived,
    FlowControlError,
    GoAwayReceived,
    GoAwayStatus,
    HeadersReceived,
    Limits,
    PingAcknowledged,
    PingReceived,
    ProtocolError,
    ResetStatus,
    Role,
    Setting,
    SettingId,
    SettingsReceived,
    StateError,
    StreamEnded,
    StreamOpened,
    StreamReplied,
    StreamReset,
    TooManyStreams,
    WindowUpdated,
)

Pair = tuple[Connection, Connection]


def rst(stream_id: int, status: int) -> bytes:
    return struct.pack(">HHIII", 0x8003, 3, 8, stream_id, status)


@pytest.fixture
def pair() -> Pair:
    return Connection(Role.CLIENT), Connection(Role.SERVER)


def opened(client: Connection, server: Connection, **options: bool) -> int:
    stream_id = client.open_stream([(b"streamtype", b"data")], **options)
    server.receive_data(client.data_to_send())
    if not options.get("unidirectional"):
        server.reply(stream_id)
        client.receive_data(server.data_to_send())
    return stream_id


def test_a_whole_exchange(pair: Pair) -> None:
    client, server = pair
    stream_id = client.open_stream([(b"streamtype", b"stdin")], priority=3)
    assert server.receive_data(client.data_to_send()) == [
        StreamOpened(1, ((b"streamtype", b"stdin"),), priority=3)
    ]
    server.reply(stream_id, [(b"a", b"b")])
    assert client.receive_data(server.data_to_send()) == [StreamReplied(1, ((b"a", b"b"),))]
    client.send_data(stream_id, b"hello")
    client.end_stream(stream_id)
    assert server.receive_data(client.data_to_send()) == [
        DataReceived(1, memoryview(b"hello")),
        StreamEnded(1),
    ]
    server.send_headers(stream_id, [(b"late", b"yes")])
    server.send_data(stream_id, b"bye", fin=True)
    assert client.receive_data(server.data_to_send()) == [
        HeadersReceived(1, ((b"late", b"yes"),)),
        DataReceived(1, memoryview(b"bye")),
        StreamEnded(1),
    ]
    assert client.open_streams == server.open_streams == ()


def test_wire_of_data_ping_and_goaway(pair: Pair) -> None:
    client, server = pair
    stream_id = opened(client, server)
    client.send_data(stream_id, b"abc", fin=True)
    assert client.data_to_send() == b"\0\0\0\1" + b"\1\0\0\3" + b"abc"
    assert client.ping() == 1
    assert client.data_to_send() == bytes.fromhex("80030006 00000004 00000001")
    server.goaway()
    assert server.data_to_send() == bytes.fromhex("80030007 00000008 00000001 00000000")


def test_stream_numbers_are_odd_and_even(pair: Pair) -> None:
    client, server = pair
    assert [client.open_stream([]) for _ in range(3)] == [1, 3, 5]
    assert [server.open_stream([]) for _ in range(2)] == [2, 4]


def test_large_frame_arrives_in_views_without_copies(pair: Pair) -> None:
    client, server = pair
    stream_id = opened(client, server)
    client.send_data(stream_id, bytes(100_000), fin=True)
    wire = bytearray(client.data_to_send())
    first = server.receive_data(memoryview(wire)[:60_000])
    assert [type(event) for event in first] == [DataReceived]
    assert isinstance(first[0], DataReceived) and first[0].data.obj is wire and len(first[0].data) == 59_992
    second = server.receive_data(memoryview(wire)[60_000:])
    assert [type(event) for event in second] == [DataReceived, StreamEnded]


def test_fast_path_head_counts_as_sent(pair: Pair) -> None:
    client, server = pair
    stream_id = opened(client, server)
    head = server.data_head(stream_id, 3, fin=True)
    assert client.receive_data(head + b"xyz") == [DataReceived(1, memoryview(b"xyz")), StreamEnded(1)]
    with pytest.raises(StateError, match="closed for sending"):
        server.data_head(stream_id, 1)


def test_buffers_to_send_keeps_references(pair: Pair) -> None:
    client, server = pair
    stream_id = opened(client, server)
    payload = bytes(1000)
    client.send_data(stream_id, payload)
    buffers = client.buffers_to_send()
    assert buffers[1] is payload and client.data_to_send() == b""


def test_unidirectional_stream_takes_no_reply(pair: Pair) -> None:
    client, server = pair
    stream_id = opened(client, server, unidirectional=True)
    with pytest.raises(StateError):
        server.reply(stream_id)
    client.send_data(stream_id, b"x", fin=True)
    assert server.receive_data(client.data_to_send())[-1] == StreamEnded(stream_id)
    assert client.open_streams == server.open_streams == ()


def test_data_needs_a_reply_first(pair: Pair) -> None:
    client, server = pair
    stream_id = client.open_stream([])
    server.receive_data(client.data_to_send())
    assert not server.can_send(stream_id)
    with pytest.raises(StateError, match="not replied"):
        server.send_data(stream_id, b"x")
    events = client.receive_data(bytes.fromhex("00000001 00000001") + b"x")
    assert events == [
        StreamReset(1, ResetStatus.PROTOCOL_ERROR, remote=False, reason="DATA before SYN_REPLY")
    ]
    assert client.data_to_send() == rst(1, 1)


def test_reset_crosses_data(pair: Pair) -> None:
    client, server = pair
    stream_id = opened(client, server)
    client.send_data(stream_id, b"on its way")
    server.reset_stream(stream_id)
    server.reset_stream(stream_id)
    assert server.receive_data(client.data_to_send()) == []
    assert client.receive_data(server.data_to_send()) == [StreamReset(1, ResetStatus.CANCEL)]
    assert server.data_to_send() == b""


def test_data_for_a_stream_that_never_was(pair: Pair) -> None:
    _, server = pair
    assert server.receive_data(bytes.fromhex("00000009 00000002") + b"xx") == []
    assert server.data_to_send() == rst(9, ResetStatus.INVALID_STREAM)


def test_data_after_its_end(pair: Pair) -> None:
    client, server = pair
    opened(client, server)
    server.receive_data(bytes.fromhex("00000001 01000000"))
    (event,) = server.receive_data(bytes.fromhex("00000001 00000001") + b"x")
    assert isinstance(event, StreamReset) and event.status == ResetStatus.STREAM_ALREADY_CLOSED


def test_faults_are_counted(pair: Pair) -> None:
    server = Connection(Role.SERVER, Limits(stream_faults=3))
    wrong = bytes.fromhex("00000009 00000000")
    server.receive_data(wrong * 3)
    with pytest.raises(ProtocolError, match="more than 3 faults"):
        server.receive_data(wrong)
    assert server.data_to_send()[-16:] == bytes.fromhex("80030007 00000008 00000000 00000001")
    assert server.receive_data(wrong) == []


def test_lower_number_is_refused_and_spares_the_live_stream(pair: Pair) -> None:
    client, server = pair
    opened(client, server)
    opened(client, server)
    again = Connection(Role.CLIENT)
    again._compressor = client._compressor
    again.open_stream([])
    assert server.receive_data(again.data_to_send()) == []
    assert server.data_to_send() == rst(1, ResetStatus.PROTOCOL_ERROR)
    assert server.open_streams == (1, 3)


def test_streams_above_the_limit_are_no_faults() -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER, Limits(streams=1, stream_faults=1))
    for _ in range(9):
        client.open_stream([])
    server.receive_data(client.data_to_send())
    assert server.data_to_send() == b"".join(
        rst(2 * each + 3, ResetStatus.REFUSED_STREAM) for each in range(8)
    )


def test_streams_above_the_limit_are_refused_and_the_headers_stay_in_step() -> None:
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER, Limits(streams=1))
    client.open_stream([(b"n", b"1")])
    client.open_stream([(b"n", b"2")])
    assert len(server.receive_data(client.data_to_send())) == 1
    assert server.data_to_send() == rst(3, ResetStatus.REFUSED_STREAM)
    server.reset_stream(1)
    client.open_stream([(b"n", b"3")])
    (event,) = server.receive_data(client.data_to_send())
    assert isinstance(event, StreamOpened) and event.headers == ((b"n", b"3"),)


def test_bad_header_names_cost_the_stream_only(pair: Pair) -> None:
    client, server = pair
    block = client._compressor.compress(b"\0\0\0\1\0\0\0\1A\0\0\0\0")
    syn = struct.pack(">HHIIIBB", 0x8003, 1, 10 + len(block), 1, 0, 0, 0) + block
    assert server.receive_data(syn) == []
    assert server.data_to_send() == rst(1, ResetStatus.PROTOCOL_ERROR)


def test_second_reply_and_reply_out_of_nowhere(pair: Pair) -> None:
    client, server = pair
    opened(client, server)
    reply = server._compressor.compress(b"\0\0\0\0")
    frame = struct.pack(">HHII", 0x8003, 2, 4 + len(reply), 1) + reply
    (event,) = client.receive_data(frame)
    assert isinstance(event, StreamReset) and event.status == ResetStatus.STREAM_IN_USE
    with pytest.raises(StateError):
        server.reply(1)
    with pytest.raises(StateError):
        client.reply(1)


def test_ping_is_answered_by_parity(pair: Pair) -> None:
    client, server = pair
    ping_id = client.ping()
    assert server.receive_data(client.data_to_send()) == [PingReceived(ping_id)]
    assert client.receive_data(server.data_to_send()) == [PingAcknowledged(ping_id)]
    assert client.receive_data(bytes.fromhex("80030006 00000004 00000001")) == []
    assert server.ping() == 2 and server.ping() == 4


def test_settings_and_the_peers_stream_limit(pair: Pair) -> None:
    client, server = pair
    entries = (Setting(SettingId.MAX_CONCURRENT_STREAMS, 1), Setting(99, 7, 1))
    server.send_settings(entries, clear=True)
    assert client.receive_data(server.data_to_send()) == [SettingsReceived(entries, clear=True)]
    client.open_stream([])
    with pytest.raises(TooManyStreams):
        client.open_stream([])


def test_goaway_ends_new_streams_only(pair: Pair) -> None:
    client, server = pair
    stream_id = opened(client, server)
    server.goaway()
    server.goaway()
    assert client.receive_data(server.data_to_send()) == [GoAwayReceived(1, GoAwayStatus.OK)]
    with pytest.raises(StateError, match="GOAWAY"):
        client.open_stream([])
    client.send_data(stream_id, b"still")
    assert len(server.receive_data(client.data_to_send())) == 1
    late = Connection(Role.CLIENT)
    late._compressor, late._next_stream = client._compressor, 3
    late.open_stream([])
    late.send_data(3, b"ignored")
    assert server.receive_data(late.data_to_send()) == []
    assert server.data_to_send() == b""


def test_window_updates_are_only_reported_without_flow_control(pair: Pair) -> None:
    _, server = pair
    frame = bytes.fromhex("80030009 00000008 00000001 00000400")
    assert server.receive_data(frame) == [WindowUpdated(1, 1024)]


def test_unknown_frames_are_skipped(pair: Pair) -> None:
    _, server = pair
    ping = bytes.fromhex("80030006 00000004 00000001")
    assert server.receive_data(bytes.fromhex("80030005 00000002 6162") + ping) == [PingReceived(1)]


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        ("80020001 00000000", "version 2"),
        ("80030001 00ffffff", "16777215 bytes"),
        ("80030001 00000004 00000001", "SYN_STREAM of 4 bytes"),
        ("80030002 00000002 0001", "SYN_REPLY of 2 bytes"),
        ("80030003 00000004 00000001", "RST_STREAM of 4 bytes"),
        ("80030003 00000008 00000001 00000000", "status 0"),
        ("80030004 00000008 00000001 00000000", "SETTINGS of 8 bytes for 1"),
        ("80030004 00000000", "SETTINGS of 0 bytes"),
        ("80030006 00000003 000001", "PING of 3 bytes"),
        ("80030007 00000004 00000001", "GOAWAY of 4 bytes"),
        ("80030009 00000004 00000001", "WINDOW_UPDATE of 4 bytes"),
        ("00000000 00000001 61", "stream 0"),
        ("80030001 0000000a 00000001 00000000 0000", "less than 4 bytes"),
    ],
)
def test_faults_of_the_connection(wire: str, message: str, pair: Pair) -> None:
    _, server = pair
    ping = bytes.fromhex("80030006 00000004 00000001")
    with pytest.raises(ProtocolError, match=message) as caught:
        server.receive_data(ping + bytes.fromhex(wire))
    assert caught.value.events == (PingReceived(1),)
    assert server.data_to_send().endswith(bytes.fromhex("80030007 00000008 00000000 00000001"))
    with pytest.raises(StateError):
        server.ping()


def test_local_misuse_is_told(pair: Pair) -> None:
    client, _ = pair
    with pytest.raises(StateError, match="NUL"):
        client.open_stream([(b"a", b"\0")])
    with pytest.raises(StateError, match="priority"):
        client.open_stream([], priority=8)
    with pytest.raises(StateError, match="16777216 bytes"):
        client.send_data(client.open_stream([]), bytes(1 << 24))
    with pytest.raises(StateError, match="not open"):
        client.send_data(99, b"x")
    client.end_stream(99)
    client._next_stream = (1 << 31) + 1
    with pytest.raises(TooManyStreams):
        client.open_stream([])


@pytest.fixture
def controlled() -> Pair:
    return Connection(Role.CLIENT, flow_control=True), Connection(Role.SERVER, flow_control=True)


def test_flow_control_holds_the_sender(controlled: Pair) -> None:
    client, server = controlled
    stream_id = opened(client, server)
    assert client.send_window(stream_id) == 65536
    client.send_data(stream_id, bytes(65536))
    with pytest.raises(FlowControlError):
        client.send_data(stream_id, b"x")
    server.receive_data(client.data_to_send())
    server.acknowledge(stream_id, 1000)
    assert server.data_to_send() == b""
    server.acknowledge(stream_id, 40_000)
    assert client.receive_data(server.data_to_send()) == [WindowUpdated(0, 41_000), WindowUpdated(1, 41_000)]
    assert client.send_window(stream_id) == 41_000


def test_flow_control_punishes_too_much(controlled: Pair) -> None:
    client, server = controlled
    opened(client, server)
    opened(client, server)
    with pytest.raises(ProtocolError, match="session window"):
        server.receive_data(struct.pack(">II", 1, 65536) + bytes(65536) + struct.pack(">II", 3, 1) + b"x")
    late = Connection(Role.SERVER, flow_control=True)
    client = Connection(Role.CLIENT)
    opened(client, late)
    late._flow.receive_window = 1 << 20  # type: ignore[union-attr]
    late._streams[1].unread = 1 << 20
    (event,) = late.receive_data(struct.pack(">II", 1, 1) + b"x")
    assert isinstance(event, StreamReset) and event.status == ResetStatus.FLOW_CONTROL_ERROR


def test_initial_window_of_settings_moves_open_streams(controlled: Pair) -> None:
    client, server = controlled
    stream_id = opened(client, server)
    server.send_settings([Setting(SettingId.INITIAL_WINDOW_SIZE, 10)])
    client.receive_data(server.data_to_send())
    assert client.send_window(stream_id) == 10
    assert client.send_window(client.open_stream([])) == 10
    server.send_settings([Setting(SettingId.INITIAL_WINDOW_SIZE, 1 << 31)])
    with pytest.raises(ProtocolError, match="initial window"):
        client.receive_data(server.data_to_send())


def test_window_overflow(controlled: Pair) -> None:
    client, server = controlled
    stream_id = opened(client, server)
    update = struct.pack(">HHIII", 0x8003, 9, 8, stream_id, 0x7FFFFFFF)
    (event,) = server.receive_data(update)
    assert isinstance(event, StreamReset) and event.status == ResetStatus.FLOW_CONTROL_ERROR
    assert server.receive_data(update) == []
    with pytest.raises(ProtocolError, match="session window update"):
        server.receive_data(struct.pack(">HHIII", 0x8003, 9, 8, 0, 0x7FFFFFFF))


def test_dropped_data_returns_its_room(controlled: Pair) -> None:
    client, server = controlled
    stream_id = opened(client, server)
    server.reset_stream(stream_id)
    server.data_to_send()
    client.send_data(stream_id, bytes(65536))
    server.receive_data(client.data_to_send())
    assert client.receive_data(server.data_to_send()) == [WindowUpdated(0, 65536)]
