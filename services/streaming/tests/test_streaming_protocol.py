"""The session protocols without I/O: recorded clients, scripted bytes, and what no client should send."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
import triptych_spdy as spdy
from hypothesis import given, settings
from hypothesis import strategies as st
from triptych_streaming.errors import HandshakeRefused, PeerFault
from triptych_streaming.protocol.channels import (
    Channel,
    ClientClosed,
    OutputRefused,
    Resized,
    SessionReady,
    StdinEnded,
    StdinReceived,
    StreamSet,
    Version,
)
from triptych_streaming.protocol.forward import (
    ForwardDropped,
    ForwardEnded,
    ForwardOpened,
    ForwardReceived,
    PortForward,
)
from triptych_streaming.protocol.handshake import RequestReader, SessionRequest, Transport, judge, refusal
from triptych_streaming.protocol.negotiation import SPDY_REMOTE, WEBSOCKET_REMOTE, Kind
from triptych_streaming.protocol.portforward_spdy import SpdyPortForward
from triptych_streaming.protocol.portforward_websocket import TunnelPortForward, WebSocketPortForward
from triptych_streaming.protocol.remotecommand import RemoteCommand
from triptych_streaming.protocol.remotecommand_spdy import SpdyRemoteCommand
from triptych_streaming.protocol.remotecommand_websocket import WebSocketRemoteCommand
from triptych_streaming.protocol.resize import ResizeParser
from triptych_streaming.protocol.status import Outcome, status_document, status_message
from triptych_streaming.protocol.websocket import open_websocket
from triptych_streaming.protocol.websocket_frames import MessagePiece

RECORDED = Path(__file__).parent / "recorded"
TOKEN = "t" * 22
OUTPUTS = StreamSet(stdout=True, stderr=True)
LIMIT = 1 << 20


def sent_by_client(name: str) -> bytes:
    """Everything that a recorded client sent; tokens of eight characters are made as long as ours."""
    sides = json.loads((RECORDED / f"{name}.json").read_text())
    data = b"".join(bytes.fromhex(text) for side, text in sides if side == "C")
    head, end, rest = data.partition(b"\r\n\r\n")
    path = head.split(b" ")[1]
    head = head.replace(path, path.rpartition(b"/")[0] + b"/" + TOKEN.encode(), 1)
    return head + end + rest


def accept(data: bytes, cut: int) -> tuple[SessionRequest, bytes]:
    """Read a request in pieces; gives it and what followed."""
    reader = RequestReader()
    for start in range(0, len(data), cut):
        request = reader.feed(data[start : start + cut])
        if request is not None:
            return request, request.early + data[start + cut :]
    raise AssertionError("no whole request")


def flat(events: Iterable[object]) -> list[object]:
    """Events with the views in them copied, and adjacent stdin joined."""
    found: list[object] = []
    for event in events:
        if isinstance(event, StdinReceived):
            data = bytes(event.data)
            if found and isinstance(found[-1], bytes):
                found[-1] += data
            else:
                found.append(data)
        elif isinstance(event, ForwardReceived):
            found.append((event.pair, bytes(event.data)))
        else:
            found.append(event)
    return found


def fed(protocol: RemoteCommand, data: bytes, cut: int) -> list[object]:
    found: list[object] = [*protocol.start()]
    for start in range(0, len(data), cut):
        found += flat(protocol.receive(data[start : start + cut]))
    return flat_join(found)


def flat_join(events: list[object]) -> list[object]:
    found: list[object] = []
    for event in events:
        if isinstance(event, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += event
        else:
            found.append(event)
    return found


def taken(protocol: RemoteCommand | PortForward) -> bytes:
    return b"".join(protocol.take())


CUTS = pytest.mark.parametrize("cut", [1, 5, 64])


@pytest.mark.parametrize(
    "protocol", [SpdyRemoteCommand(OUTPUTS, Version.V4, "v4"), SpdyPortForward()], ids=["remote", "forward"]
)
def test_a_probe_over_spdy_means_nothing(protocol: RemoteCommand | PortForward) -> None:
    probe = b"".join(protocol.probe())
    assert spdy.Connection(spdy.Role.CLIENT).receive_data(probe) == [spdy.SettingsReceived((), False)]


@pytest.mark.parametrize("kind", ["remote", "forward", "tunnel"])
def test_a_probe_over_websocket_is_a_pong_until_the_close(kind: str) -> None:
    socket = open_websocket(LIMIT)
    protocols: dict[str, RemoteCommand | PortForward] = {
        "remote": WebSocketRemoteCommand(socket, OUTPUTS, Version.V5, "v5", base64=False),
        "forward": WebSocketPortForward(socket, [80], "v4", base64=False),
        "tunnel": TunnelPortForward(socket, SpdyPortForward(), "tunnel"),
    }
    protocol = protocols[kind]
    assert b"".join(protocol.probe()) == b"\x8a\0"
    socket.close()
    protocol.take()
    assert protocol.probe() == []


@CUTS
@pytest.mark.parametrize(
    ("name", "streams", "expected"),
    [
        ("containerd-exec-spdy", OUTPUTS, [SessionReady()]),
        (
            "containerd-exec-spdy-stdin",
            StreamSet(stdin=True, stdout=True, stderr=True),
            [SessionReady(), b"hello stdin\n", StdinEnded()],
        ),
    ],
)
def test_crictl_over_spdy(name: str, streams: StreamSet, expected: list[object], cut: int) -> None:
    request, rest = accept(sent_by_client(name), cut)
    acceptance = judge(request)
    assert (acceptance.transport, acceptance.protocol) == (Transport.SPDY, "v4.channel.k8s.io")
    protocol = SpdyRemoteCommand(streams, SPDY_REMOTE[acceptance.protocol], acceptance.protocol)
    found = fed(protocol, rest, cut)
    # At its end the recorded client resets what this server never ended.
    assert [event for event in found if not isinstance(event, OutputRefused)] == expected


def test_crictl_with_a_terminal_over_spdy() -> None:
    request, rest = accept(sent_by_client("containerd-exec-spdy-tty"), 3)
    streams = StreamSet(stdin=True, stdout=True, tty=True)
    protocol = SpdyRemoteCommand(streams, Version.V4, judge(request).protocol)
    # The recording's terminal had no size; a size of 0 is no size.
    assert fed(protocol, rest, 3) == [SessionReady(), b"\0"]


@CUTS
@pytest.mark.parametrize(
    ("name", "streams", "expected"),
    [
        ("triptych-exec-websocket", OUTPUTS, [SessionReady(), ClientClosed()]),
        (
            "triptych-exec-websocket-stdin",
            StreamSet(stdin=True, stdout=True, stderr=True),
            [SessionReady(), b"hello stdin\n", StdinEnded(), ClientClosed()],
        ),
    ],
)
def test_crictl_over_websocket(name: str, streams: StreamSet, expected: list[object], cut: int) -> None:
    request, rest = accept(sent_by_client(name), cut)
    acceptance = judge(request)
    assert (acceptance.transport, acceptance.protocol) == (Transport.WEBSOCKET, "v5.channel.k8s.io")
    assert fed(websocket_command(streams, acceptance.protocol), rest, cut) == expected


@CUTS
def test_crictl_port_forward_over_spdy(cut: int) -> None:
    request, rest = accept(sent_by_client("containerd-forward-spdy"), cut)
    assert judge(request).protocol == "portforward.k8s.io"
    assert_forwarded(SpdyPortForward(), rest, cut)


@CUTS
def test_crictl_port_forward_through_the_tunnel(cut: int) -> None:
    request, rest = accept(sent_by_client("triptych-forward-websocket"), cut)
    acceptance = judge(request)
    assert acceptance.protocol == "SPDY/3.1+portforward.k8s.io"
    tunnel = TunnelPortForward(open_websocket(LIMIT), SpdyPortForward(), acceptance.protocol)
    assert_forwarded(tunnel, rest, cut)


def assert_forwarded(protocol: PortForward, data: bytes, cut: int) -> None:
    found: list[object] = []
    for start in range(0, len(data), cut):
        found += flat(protocol.receive(data[start : start + cut], 0))
    assert found[0] == ForwardOpened("0", 9001)
    assert b"".join(each[1] for each in found if isinstance(each, tuple)) == b"through the tunnel\n"
    assert ForwardEnded("0") in found


def websocket_command(streams: StreamSet, name: str) -> WebSocketRemoteCommand:
    form = WEBSOCKET_REMOTE[name]
    socket = open_websocket(LIMIT)
    return WebSocketRemoteCommand(socket, streams, form.version, name, base64=form.base64)


def message(payload: bytes, *, opcode: int = 2, fin: bool = True) -> bytes:
    """A client's frame, masked with zeros."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes(((0x80 if fin else 0) | opcode,)) + length + bytes(4) + payload


class Client:
    """The other end of a SPDY session."""

    def __init__(self, protocol: RemoteCommand | PortForward) -> None:
        self.spdy = spdy.Connection(spdy.Role.CLIENT)
        self.protocol = protocol
        self.events: list[spdy.Event] = []

    def open(self, **headers: str) -> int:
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        return self.spdy.open_stream(pairs)

    def exchange(self, now: float = 0) -> list[object]:
        """Carry what waits both ways; gives the server's events."""
        data = self.spdy.data_to_send()
        if isinstance(self.protocol, PortForward):
            found = flat(self.protocol.receive(data, now))
        else:
            found = flat(self.protocol.receive(data))
        self.listen()
        return found

    def listen(self) -> list[spdy.Event]:
        heard = self.spdy.receive_data(taken(self.protocol))
        self.events += heard
        return heard

    def received(self, stream_id: int) -> bytes:
        return b"".join(
            bytes(event.data)
            for event in self.events
            if isinstance(event, spdy.DataReceived) and event.stream_id == stream_id
        )


def test_order_of_the_end_over_spdy() -> None:
    client = Client(SpdyRemoteCommand(StreamSet(stdin=True, stdout=True, stderr=True), Version.V4, "v4"))
    error, stdin, stdout, stderr = (
        client.open(streamtype=kind) for kind in ("error", "stdin", "stdout", "stderr")
    )
    assert client.exchange() == [SessionReady()]
    client.events.clear()
    protocol = client.protocol
    assert isinstance(protocol, SpdyRemoteCommand)
    protocol.output(Channel.STDOUT, b"last words")
    protocol.finish(Outcome(exit_code=3))
    heard = client.listen()
    kinds = [(type(event).__name__, getattr(event, "stream_id", 0)) for event in heard]
    assert kinds == [
        ("DataReceived", stdout),
        ("StreamEnded", stdout),
        ("StreamEnded", stderr),
        ("DataReceived", error),
        ("StreamEnded", error),
        ("StreamReset", stdin),
        ("GoAwayReceived", 0),
    ]


def test_version_1_resets_its_error_stream_at_once() -> None:
    client = Client(SpdyRemoteCommand(StreamSet(stdin=True, stdout=True), Version.V1, "v1"))
    error, stdin, _ = (client.open(streamtype=kind) for kind in ("error", "stdin", "stdout"))
    client.spdy.send_data(stdin, b"still heard")
    assert client.exchange() == [SessionReady(), b"still heard"]
    assert spdy.StreamReset(error, spdy.ResetStatus.CANCEL) in client.events
    assert spdy.StreamEnded(stdin) in client.events


def test_unknown_and_repeated_streams_are_refused() -> None:
    client = Client(SpdyRemoteCommand(OUTPUTS, Version.V4, "v4"))
    for kind in ("error", "error", "nonsense"):
        client.open(streamtype=kind)
    assert client.exchange() == []
    refused = [event for event in client.events if isinstance(event, spdy.StreamReset)]
    assert [event.stream_id for event in refused] == [3, 5]


def test_streams_that_were_not_asked_for_are_taken_and_not_heard() -> None:
    client = Client(SpdyRemoteCommand(StreamSet(stdout=True), Version.V4, "v4"))
    _, _, stdin = (client.open(streamtype=kind) for kind in ("error", "stdout", "stdin"))
    client.spdy.send_data(stdin, b"ignored", fin=True)
    assert client.exchange() == [SessionReady()]


def test_resets_of_the_client() -> None:
    client = Client(SpdyRemoteCommand(StreamSet(stdin=True, stdout=True, stderr=True), Version.V4, "v4"))
    _, stdin, stdout, _ = (client.open(streamtype=kind) for kind in ("error", "stdin", "stdout", "stderr"))
    client.exchange()
    client.spdy.reset_stream(stdout)
    client.spdy.reset_stream(stdin)
    assert client.exchange() == [OutputRefused(Channel.STDOUT), StdinEnded()]
    assert isinstance(client.protocol, SpdyRemoteCommand)
    client.protocol.output(Channel.STDOUT, b"dropped")
    assert client.listen() == []


def test_resize_waits_for_version_3() -> None:
    streams = StreamSet(stdin=True, stdout=True, tty=True)
    assert Channel.RESIZE not in streams.expected(Version.V2)
    assert Channel.RESIZE in streams.expected(Version.V3)
    client = Client(SpdyRemoteCommand(streams, Version.V3, "v3"))
    for kind in ("error", "stdin", "stdout"):
        client.open(streamtype=kind)
    assert client.exchange() == []
    resize = client.open(streamtype="resize")
    client.spdy.send_data(resize, b'{"Width":80,"Height":24}')
    assert client.exchange() == [SessionReady(), Resized(80, 24)]


def test_garbage_is_the_peers_fault() -> None:
    protocol = SpdyRemoteCommand(OUTPUTS, Version.V4, "v4")
    with pytest.raises(PeerFault):
        protocol.receive(b"\x80\x03\x00\x01\xff\xff\xff\xff")
    assert taken(protocol)[2:4] == b"\x00\x07"


def test_websocket_readiness_and_outputs() -> None:
    protocol = websocket_command(OUTPUTS, "v4.channel.k8s.io")
    assert protocol.start() == (SessionReady(),)
    assert taken(protocol) == b"\x82\x01\x01"
    protocol.output(Channel.STDERR, b"e" * 200)
    assert taken(protocol) == b"\x82\x7e\x00\xc9\x02" + b"e" * 200
    protocol.output(Channel.STDOUT, bytes(70_000))
    assert taken(protocol)[:11] == b"\x82\x7f" + (70_001).to_bytes(8, "big") + b"\x01"
    protocol.finish(Outcome(exit_code=0))
    assert taken(protocol).endswith(b"\x88\x02\x03\xe8")
    protocol.output(Channel.STDOUT, b"too late")
    assert taken(protocol) == b""


def test_base64_messages() -> None:
    protocol = websocket_command(StreamSet(stdin=True, stdout=True), "v4.base64.channel.k8s.io")
    protocol.start()
    assert taken(protocol) == b"\x81\x011"
    protocol.output(Channel.STDOUT, b"hi")
    assert taken(protocol) == b"\x81\x051aGk="
    assert flat(protocol.receive(message(b"0aGVsbG8=", opcode=1))) == [b"hello"]
    split = message(b"0aGV", opcode=1, fin=False) + message(b"sbG8=", opcode=0)
    assert flat(protocol.receive(split)) == [b"hello"]
    for wrong in (b"0!!", b"xaGVsbG8="):
        with pytest.raises(PeerFault):
            websocket_command(StreamSet(stdin=True), "base64.channel.k8s.io").receive(
                message(wrong, opcode=1)
            )


def test_binary_messages_pass_in_pieces() -> None:
    protocol = websocket_command(StreamSet(stdin=True, stdout=True), "v4.channel.k8s.io")
    data = message(b"\0one", fin=False) + message(b"two", opcode=0, fin=False) + message(b"x", opcode=0)
    assert [bytes(each.data) for each in protocol.receive(data) if isinstance(each, StdinReceived)] == [
        b"one",
        b"two",
        b"x",
    ]
    assert flat(protocol.receive(message(b"") + message(b"\x07?") + message(b"\0"))) == []


def test_the_close_signal_is_version_5s() -> None:
    streams = StreamSet(stdin=True, stdout=True)
    old = websocket_command(streams, "v4.channel.k8s.io")
    assert flat(old.receive(message(b"\xff\x00") + message(b"\0data"))) == [b"data"]
    new = websocket_command(streams, "v5.channel.k8s.io")
    assert flat(new.receive(message(b"\xff\x00") + message(b"\0late"))) == [StdinEnded()]
    assert flat(new.receive(message(b"\xff\x01"))) == [OutputRefused(Channel.STDOUT)]
    with pytest.raises(PeerFault, match="close signal"):
        new.receive(message(b"\xff\x00\x00"))


def test_websocket_faults_end_the_session() -> None:
    protocol = websocket_command(OUTPUTS, "v5.channel.k8s.io")
    with pytest.raises(PeerFault):
        protocol.receive(b"\xf0\x00")
    protocol = websocket_command(OUTPUTS, "v5.channel.k8s.io")
    with pytest.raises(PeerFault):
        protocol.receive(b"\x82\xff" + (LIMIT + 1).to_bytes(8, "big") + bytes(4))
    assert b"\x03\xf1" in taken(protocol)


def masked(payload: bytes, mask: bytes, *, opcode: int = 2, fin: bool = True) -> bytes:
    """A client's frame with a 64-bit length."""
    text = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes(((0x80 if fin else 0) | opcode, 0xFF)) + len(payload).to_bytes(8, "big") + mask + text


@given(
    parts=st.lists(st.binary(max_size=40), min_size=1, max_size=4),
    mask=st.binary(min_size=4, max_size=4),
    cut=st.integers(1, 60),
)
@settings(max_examples=200)
def test_a_frame_is_read_alike_however_it_arrives(parts: list[bytes], mask: bytes, cut: int) -> None:
    sent = b"".join(
        masked(part, mask, opcode=0 if index else 2, fin=index == len(parts) - 1) + message(b"", opcode=9)
        for index, part in enumerate(parts)
    )
    socket = open_websocket(LIMIT)
    pieces = [
        piece
        for start in range(0, len(sent), cut)
        for piece in socket.receive(sent[start : start + cut])
        if isinstance(piece, MessagePiece)
    ]
    assert b"".join(piece.data for piece in pieces) == b"".join(parts)
    assert [piece.first for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert b"".join(socket.take()) == b"\x8a\0" * len(parts)


def test_nothing_is_kept_of_a_frame_that_is_not_whole() -> None:
    for name in ("v4.channel.k8s.io", "v4.base64.channel.k8s.io"):
        protocol = websocket_command(StreamSet(stdin=True), name)
        opcode = 1 if "base64" in name else 2
        frame = masked(b"0" + b"AAAA" * 25_000 if opcode == 1 else b"\0" + bytes(75_000), b"mask")[:-1]
        (received,) = flat(protocol.receive(frame))
        assert isinstance(received, bytes) and len(received) > 74_990


@pytest.mark.parametrize("name", ["v5.channel.k8s.io", "v4.base64.channel.k8s.io"])
def test_messages_come_byte_by_byte(name: str) -> None:
    protocol = websocket_command(StreamSet(stdin=True), name)
    if "base64" in name:
        sent, end = message(b"0aGVsbG8=", opcode=1) + message(b"0IHRoZXJl", opcode=1), []
    else:
        sent, end = message(b"\0hello") + message(b"\0 there") + message(b"\xff\0"), [StdinEnded()]
    assert fed(protocol, sent, 1) == [SessionReady(), b"hello there", *end]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x82\x05hello",
        b"\xc2\x80\0\0\0\0",
        b"\x83\x80\0\0\0\0",
        message(b"", opcode=0),
        message(b"", fin=False) + message(b""),
        message(b"", opcode=9, fin=False),
        message(bytes(126), opcode=9),
        message(b"\0", opcode=8),
        message(b"\xff", opcode=2),
    ],
    ids=["unmasked", "reserved", "opcode", "continued", "nested", "parts", "long", "close", "signal"],
)
def test_no_frames_of_a_client(sent: bytes) -> None:
    protocol = websocket_command(OUTPUTS, "v5.channel.k8s.io")
    with pytest.raises(PeerFault, match="websocket: "):
        protocol.receive(sent)


def test_base64_that_goes_on_behind_its_end() -> None:
    protocol = websocket_command(StreamSet(stdin=True), "base64.channel.k8s.io")
    begun = message(b"0aGVsbG8=", opcode=1, fin=False)
    assert flat(protocol.receive(begun)) == [b"hello"]
    with pytest.raises(PeerFault, match="base64"):
        protocol.receive(message(b"AAAA", opcode=0))


def test_ping_is_answered() -> None:
    protocol = websocket_command(OUTPUTS, "v5.channel.k8s.io")
    assert protocol.receive(message(b"alive", opcode=9)) == []
    assert taken(protocol) == b"\x8a\x05alive"


def test_statuses() -> None:
    assert status_document(Outcome(exit_code=0)) == {"metadata": {}, "status": "Success"}
    assert status_document(Outcome()) == {"metadata": {}, "status": "Success"}
    failed = status_document(Outcome(failure="no such thing"))
    assert failed["reason"] == "InternalError" and failed["code"] == 500
    assert failed["message"] == "Internal error occurred: no such thing"
    assert status_message(Outcome(failure="x"), Version.V3) == b"Internal error occurred: x"
    assert status_message(Outcome(exit_code=0), Version.V3) == b""
    assert status_message(Outcome(exit_code=2), Version.V2).endswith(b"exit status 2")


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        (b'{"Width":80,"Height":24}{"Width":1,"Height":2}\n', [Resized(80, 24), Resized(1, 2)]),
        (b'{"width":80,"HEIGHT":24}', [Resized(80, 24)]),
        (b'{"Width":0,"Height":24}{"Width":70000,"Height":2}{"Width":-1,"Height":2}{}', []),
        (b'{"Width":"80","Height":24}', []),
        (b'[1]{"Width":80,"Height":24}', []),
        (b'nonsense{"Width":80,"Height":24}', []),
        (b'\xff{"Width":80,"Height":24}', []),
    ],
)
def test_resize(text: bytes, sizes: list[Resized]) -> None:
    assert ResizeParser().feed(text) == sizes
    parser = ResizeParser()
    assert [size for byte in text for size in parser.feed(bytes((byte,)))] == sizes


def test_resize_keeps_little() -> None:
    parser = ResizeParser()
    for _ in range(100):
        parser.feed(b'{"Width":' + b" " * 1000)
    assert len(parser._text) < 6000
    assert parser.feed(b'80,"Height":24}') == []


@given(st.binary(max_size=200))
def test_resize_survives_anything(data: bytes) -> None:
    ResizeParser().feed(data)


def request_bytes(*lines: str, target: str = f"/exec/{TOKEN}", method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    "path", ["/", f"/exec/{TOKEN}x", "/exec/short", f"/run/{TOKEN}", f"/exec/{TOKEN}/x"]
)
def test_paths_of_no_session(path: str) -> None:
    with pytest.raises(HandshakeRefused) as caught:
        RequestReader().feed(request_bytes(target=path))
    assert caught.value.status == 404
    assert TOKEN not in refusal(caught.value).decode()


def test_paths_of_sessions() -> None:
    for kind in Kind:
        request = RequestReader().feed(request_bytes(target=f"/a/b/{kind.value}/{TOKEN}?command=x"))
        assert request is not None and (request.kind, request.token) == (kind, TOKEN)


def test_a_head_that_does_not_end() -> None:
    reader = RequestReader()
    with pytest.raises(HandshakeRefused):
        for _ in range(100):
            reader.feed(b"X-Header: " + b"a" * 1000)


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_the_request_reader_survives_anything(data: bytes) -> None:
    try:
        RequestReader().feed(data + b"\r\n\r\n")
    except HandshakeRefused as refused:
        assert refusal(refused).startswith(b"HTTP/1.1 4")


def forward_client(**options: float) -> tuple[Client, SpdyPortForward]:
    protocol = SpdyPortForward(pair_timeout=options.get("pair_timeout", 30.0))
    return Client(protocol), protocol


def test_pairs_in_any_order_and_without_ids() -> None:
    client, _ = forward_client()
    first = client.open(streamtype="data", port="80", requestid="7")
    assert client.exchange() == []
    client.spdy.send_data(first, b"early", fin=True)
    assert client.exchange() == []
    client.open(streamtype="error", port="80", requestid="7")
    assert client.exchange() == [ForwardOpened("7", 80), ("7", b"early"), ForwardEnded("7")]
    error = client.open(streamtype="error", port="81")
    data = client.open(streamtype="data", port="81")
    assert data == error + 2
    assert client.exchange() == [ForwardOpened(f"stream {error}", 81)]


def test_half_pairs_expire() -> None:
    client, protocol = forward_client(pair_timeout=30.0)
    error = client.open(streamtype="error", port="80", requestid="1")
    client.exchange(now=100.0)
    protocol.expire(129.0)
    assert client.listen() == []
    protocol.expire(130.0)
    client.listen()
    assert b"not complete in time" in client.received(error)


def test_failures_are_text_and_a_reset() -> None:
    client, protocol = forward_client()
    error = client.open(streamtype="error", port="80", requestid="1")
    data = client.open(streamtype="data", port="80", requestid="1")
    client.exchange()
    protocol.fail("1", "nobody listens")
    client.listen()
    assert client.received(error) == b"nobody listens"
    assert spdy.StreamReset(data, spdy.ResetStatus.CANCEL) in client.events
    protocol.output("1", b"dropped")
    protocol.end_output("1")
    assert client.listen() == []


def test_a_pair_that_the_client_drops() -> None:
    client, _ = forward_client()
    client.open(streamtype="error", port="80", requestid="1")
    data = client.open(streamtype="data", port="80", requestid="1")
    client.exchange()
    client.spdy.reset_stream(data)
    assert client.exchange() == [ForwardDropped("1")]


def test_the_old_websocket_form_tells_its_ports() -> None:
    protocol = WebSocketPortForward(open_websocket(LIMIT), [80, 443], "", base64=False)
    assert protocol.start() == [ForwardOpened("0", 80), ForwardOpened("1", 443)]
    heads = b"".join(b"\x82\x03" + bytes((c,)) + p.to_bytes(2, "little") for c, p in
                     ((0, 80), (1, 80), (2, 443), (3, 443)))  # fmt: skip
    assert taken(protocol) == heads
    assert flat(protocol.receive(message(b"\x02hello") + message(b"\x03no") + message(b"\x09no"), 0)) == [
        ("1", b"hello")
    ]
    protocol.fail("0", "refused")
    protocol.forget("1")
    assert taken(protocol) == b"\x82\x08\x01refused" + b"\x88\x02\x03\xe8"
