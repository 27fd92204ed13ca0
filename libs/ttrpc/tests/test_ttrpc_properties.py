"""Any cut of the bytes gives the same events; and an end is fed what no end would send."""

from __future__ import annotations

import struct
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from triptych_errors import Code
from triptych_ttrpc import Connection, Event, ProtocolError, RequestReceived, ResponseReceived, Role

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
PAYLOAD = st.binary(max_size=40) | st.integers(3_900, 9_000).map(bytes)
CALL = st.tuples(st.just("call"), TEXT, TEXT, PAYLOAD, st.integers(0, 2**63 - 1))
ANSWER = st.tuples(st.just("answer"), st.integers(0, 2**32 - 1), PAYLOAD)
STATUS = st.tuples(st.just("status"), st.integers(0, 2**32 - 1), st.sampled_from(Code), TEXT)
NOISE = st.tuples(st.just("noise"), st.sampled_from([0, 3, 2**32 - 1]), st.binary(max_size=20))


def feed(connection: Connection, data: bytes, cuts: list[int]) -> tuple[list[Event], str]:
    """What an end hears of pieces of these sizes and the rest, and how it ends."""
    events: list[Event] = []
    at = 0
    try:
        for size in [*cuts, len(data)]:
            for event in connection.receive_data(data[at : at + size]):
                events.append(event)  # noqa: PERF402 - what came before the error counts
            at += size
    except ProtocolError as error:
        return events, str(error)
    return events, ""


@given(st.lists(CALL | ANSWER | STATUS | NOISE, max_size=12), st.lists(st.integers(1, 5_000), max_size=20))
def test_what_one_end_makes_the_other_understands_in_any_pieces(
    made: list[tuple[Any, ...]], cuts: list[int]
) -> None:
    runtime, data = Connection(Role.RUNTIME), b""
    expected: list[Event] = []
    for what, *values in made:
        if what == "call":
            service, method, payload, timeout = values
            stream_id, sent = runtime.request(service, method, payload, timeout)
            data += sent
            expected.append(RequestReceived(stream_id, service, method, payload, timeout))
        elif what == "answer":
            data += runtime.response(*values)
            expected.append(ResponseReceived(values[0], 0, "", values[1]))
        elif what == "status":
            data += runtime.status(*values)
            expected.append(ResponseReceived(values[0], int(values[1]), values[2], b""))
        else:
            data += struct.pack(">II", values[0], len(values[1])) + values[1]
    assert feed(Connection(Role.PLUGIN), data, cuts) == (expected, "")


def heads() -> st.SearchStrategy[bytes]:
    """Frames with a head of ttrpc in them that is nearly right."""
    numbers = st.sampled_from([0, 1, 2, 3, 5, 4_194_304, 4_194_305, 2**32 - 1])
    head = st.builds(struct.Struct(">IIBB").pack, numbers, numbers, st.integers(0, 4), st.integers(0, 7))
    body = st.builds(bytes.__add__, head, st.binary(max_size=30))
    return st.builds(lambda number, data: struct.pack(">II", number, len(data)) + data, numbers, body)


@given(st.lists(heads() | st.binary(max_size=30), max_size=10).map(b"".join), st.lists(st.integers(1, 60)))
def test_nonsense_gives_the_same_in_any_pieces_and_no_other_error(data: bytes, cuts: list[int]) -> None:
    assert feed(Connection(), data, cuts) == feed(Connection(), data, [])
