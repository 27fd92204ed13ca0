"""The protocol without I/O: what goes out byte by byte, and what becomes of what comes in."""

from __future__ import annotations

import struct

import pytest
from triptych_errors import Code
from triptych_ttrpc import (
    MAX_MESSAGE,
    Connection,
    ConnectionClosed,
    Event,
    ProtocolError,
    RequestReceived,
    RequestRefused,
    ResponseReceived,
    Role,
    TooLarge,
)
from ttrpc.v1.ttrpc_pb2 import KeyValue, Request, Response, Status

FRAME = struct.Struct(">II")
HEAD = struct.Struct(">IIBB")
REQUEST, RESPONSE, DATA = 1, 2, 3


def message(stream_id: int, kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return HEAD.pack(len(payload), stream_id, kind, flags) + payload


def frame(connection_id: int, data: bytes) -> bytes:
    return FRAME.pack(connection_id, len(data)) + data


def cut(data: bytes) -> list[tuple[int, bytes]]:
    """The frames of a stream: connection and bytes."""
    found = []
    while data:
        connection_id, length = FRAME.unpack_from(data)
        found.append((connection_id, data[8 : 8 + length]))
        assert len(found[-1][1]) == length
        data = data[8 + length :]
    return found


def received(data: bytes, role: Role = Role.RUNTIME) -> list[Event]:
    return list(Connection(role).receive_data(data))


def test_a_request_is_one_frame_on_the_plugins_connection() -> None:
    stream_id, data = Connection().request("a.B", "C", b"payload", 5_000)
    body = Request(service="a.B", method="C", payload=b"payload", timeout_nano=5_000).SerializeToString()
    assert stream_id == 1
    assert data == FRAME.pack(1, 10 + len(body)) + HEAD.pack(len(body), 1, REQUEST, 0) + body
    assert received(data, Role.PLUGIN) == [RequestReceived(1, "a.B", "C", b"payload", 5_000)]


def test_the_streams_of_calls_are_odd_and_rise_until_there_are_none() -> None:
    connection = Connection()
    assert [connection.request("s", "m", b"")[0] for _ in range(3)] == [1, 3, 5]
    connection._next_stream = 0xFFFF_FFFF
    assert connection.request("s", "m", b"")[0] == 0xFFFF_FFFF
    with pytest.raises(ConnectionClosed):
        connection.request("s", "m", b"")


def test_answers_go_out_on_the_connection_of_this_ends_service() -> None:
    connection = Connection()
    assert received(connection.response(7, b"yes"), Role.PLUGIN) == [ResponseReceived(7, 0, "", b"yes")]
    assert cut(connection.response(7, b"yes"))[0][0] == 2
    refused = connection.status(9, Code.NOT_FOUND, "no pod")
    assert received(refused, Role.PLUGIN) == [ResponseReceived(9, 5, "no pod", b"")]


def test_of_a_long_message_of_an_error_the_begin_is_sent_and_what_is_no_text_is_replaced() -> None:
    [event] = received(Connection().status(1, Code.UNKNOWN, "\udcff" + "é" * MAX_MESSAGE), Role.PLUGIN)
    assert isinstance(event, ResponseReceived) and event.message == "?" + "é" * 4095


@pytest.mark.parametrize("length", [0, 1, *range(4_070, 4_090), *range(8_170, 8_190), 1 << 20])
def test_a_message_is_a_frame_of_4096_bytes_and_one_of_all_the_rest(length: int) -> None:
    pieces = cut(Connection().response(1, bytes(length)))
    whole = b"".join(piece for _, piece in pieces)
    assert {connection_id for connection_id, _ in pieces} == {2}
    assert whole == message(1, RESPONSE, Response(payload=bytes(length)).SerializeToString())
    sizes = [len(whole)] if len(whole) <= 4096 else [4096, len(whole) - 4096]
    assert [len(piece) for _, piece in pieces] == sizes


def test_a_message_of_the_maximum_goes_and_one_byte_more_is_refused_before_it_has_a_stream() -> None:
    connection, other = Connection(), Connection(Role.PLUGIN)
    envelope = (
        len(Request(service="s", method="m", payload=bytes(MAX_MESSAGE)).SerializeToString()) - MAX_MESSAGE
    )
    most = bytes(MAX_MESSAGE - envelope)
    with pytest.raises(TooLarge) as refused:
        connection.request("s", "m", most + b"x")
    assert (refused.value.length, refused.value.maximum) == (MAX_MESSAGE + 1, MAX_MESSAGE)
    stream_id, data = connection.request("s", "m", most)
    assert stream_id == 1
    assert list(other.receive_data(data)) == [RequestReceived(1, "s", "m", most, 0)]
    with pytest.raises(TooLarge):
        connection.response(1, bytes(MAX_MESSAGE))


def test_responses_are_told_with_their_status_whatever_its_number() -> None:
    ok = Response(status=Status(code=0), payload=b"x").SerializeToString()
    bad = Response(status=Status(code=99, message="odd")).SerializeToString()
    data = frame(1, message(3, RESPONSE, ok)) + frame(1, message(1, RESPONSE, bad) + message(5, RESPONSE))
    assert received(data) == [
        ResponseReceived(3, 0, "", b"x"),
        ResponseReceived(1, 99, "odd", b""),
        ResponseReceived(5, 0, "", b""),
    ]


def test_frames_of_other_connections_are_passed_over() -> None:
    body = Request(service="s", method="m", metadata=[KeyValue(key="k", value="v")]).SerializeToString()
    asked = message(1, REQUEST, body)
    noise = frame(0, b"\xff" * 100) + frame(3, asked) + frame(0xFFFF_FFFF, b"") + frame(2, b"")
    data = noise + frame(2, asked[:7]) + noise + frame(2, asked[7:])
    assert received(data) == [RequestReceived(1, "s", "m", b"", 0)]


def test_one_frame_may_have_several_messages_and_the_connections_do_not_mix() -> None:
    asked = message(1, REQUEST, Request(service="s", method="m").SerializeToString())
    told = message(1, RESPONSE)
    data = frame(2, asked[:5]) + frame(1, told[:4]) + frame(2, asked[5:]) + frame(1, told[4:] + told)
    assert received(data) == [
        RequestReceived(1, "s", "m", b"", 0),
        ResponseReceived(1, 0, "", b""),
        ResponseReceived(1, 0, "", b""),
    ]


@pytest.mark.parametrize(
    "asked, code",
    [
        (message(2, REQUEST), Code.INVALID_ARGUMENT),
        (message(0, REQUEST), Code.INVALID_ARGUMENT),
        (message(5, DATA, b"x"), Code.INVALID_ARGUMENT),
        (message(5, REQUEST, b"\xff"), Code.INVALID_ARGUMENT),
        (message(5, REQUEST, flags=1), Code.UNIMPLEMENTED),
        (message(5, REQUEST, flags=2), Code.UNIMPLEMENTED),
    ],
)
def test_who_asks_wrongly_is_told_on_the_stream_and_the_connection_goes_on(asked: bytes, code: Code) -> None:
    good = message(7, REQUEST, Request(service="s", method="m").SerializeToString())
    refused, served = received(frame(2, asked) + frame(2, good))
    assert isinstance(refused, RequestRefused) and refused.code == code
    assert refused.stream_id == HEAD.unpack_from(asked)[1]
    assert served == RequestReceived(7, "s", "m", b"", 0)


def test_a_request_must_have_a_higher_stream_than_the_last() -> None:
    asked = [message(stream_id, REQUEST) for stream_id in (3, 3, 1, 5)]
    kinds = [type(event) for event in received(frame(2, b"".join(asked)))]
    assert kinds == [RequestReceived, RequestRefused, RequestRefused, RequestReceived]


def test_types_of_later_versions_are_passed_over_by_the_server() -> None:
    assert received(frame(2, message(1, 4, b"news") + message(1, RESPONSE))) == []


@pytest.mark.parametrize(
    "data",
    [
        FRAME.pack(1, MAX_MESSAGE + 11),
        FRAME.pack(9, 0xFFFF_FFFF),
        frame(1, HEAD.pack(MAX_MESSAGE + 1, 1, RESPONSE, 0)),
        frame(2, HEAD.pack(0xFFFF_FFFF, 1, REQUEST, 0)),
        frame(1, message(1, DATA, b"x")),
        frame(1, message(1, REQUEST)),
        frame(1, message(1, RESPONSE, b"\xff")),
    ],
)
def test_what_ends_the_connection_is_seen_by_the_head_alone(data: bytes) -> None:
    before = frame(1, message(1, RESPONSE))
    events = Connection().receive_data(before + data + b"more")
    assert next(events) == ResponseReceived(1, 0, "", b"")
    with pytest.raises(ProtocolError):
        list(events)
