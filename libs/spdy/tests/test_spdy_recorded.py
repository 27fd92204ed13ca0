"""Conversations of crictl 1.36 (client-go) and containerd (moby/spdystream), recorded on the wire."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from triptych_spdy import (
    Connection,
    DataReceived,
    Event,
    GoAwayReceived,
    Role,
    StreamEnded,
    StreamOpened,
    StreamReplied,
    StreamReset,
    find_header,
)

RECORDED = sorted((Path(__file__).parent / "recorded").glob("*.json"))


def pieces(path: Path) -> list[tuple[str, bytes]]:
    """What each side sent, in order, without the HTTP upgrade."""
    found: list[tuple[str, bytes]] = []
    upgraded = set()
    for side, text in json.loads(path.read_text()):
        data = bytes.fromhex(text)
        if side not in upgraded:
            upgraded.add(side)
            data = data.partition(b"\r\n\r\n")[2]
        if data:
            found.append((side, data))
    return found


def replay(path: Path, cut: int) -> tuple[list[Event], list[Event], dict[int, bytes]]:
    """Play both ends against the engine: events of the server, of the client, and payload by stream."""
    client, server = Connection(Role.CLIENT), Connection(Role.SERVER)
    heard: list[Event] = []
    told: list[Event] = []
    payload: dict[int, bytearray] = {}
    for side, data in pieces(path):
        for start in range(0, len(data), cut):
            piece = data[start : start + cut]
            if side == "C":
                for event in server.receive_data(piece):
                    heard.append(event)
                    if isinstance(event, StreamOpened):
                        # Our client opens what theirs did, so that it knows what the answers are about.
                        assert client.open_stream(event.headers) == event.stream_id
                        server.reply(event.stream_id)
            else:
                for event in client.receive_data(piece):
                    told.append(event)
                    if isinstance(event, DataReceived):
                        payload.setdefault(event.stream_id, bytearray()).extend(event.data)
    return heard, told, {stream_id: bytes(data) for stream_id, data in payload.items()}


@pytest.mark.parametrize("cut", [1, 7, 1 << 16])
@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_both_ends_are_understood(path: Path, cut: int) -> None:
    heard, told, _ = replay(path, cut)
    opened = [event for event in heard if isinstance(event, StreamOpened)]
    replied = [event for event in told if isinstance(event, StreamReplied)]
    assert opened and [event.stream_id for event in replied] == [event.stream_id for event in opened]
    assert all(event.headers == () for event in replied)
    assert not any(isinstance(event, StreamReset) and not event.remote for event in heard + told)


def test_exec_with_both_outputs() -> None:
    heard, told, payload = replay(RECORDED[0].with_name("containerd-exec-spdy.json"), 1 << 16)
    kinds = {
        find_header(event.headers, b"streamtype"): event.stream_id
        for event in heard
        if isinstance(event, StreamOpened)
    }
    assert list(kinds) == [b"error", b"stdout", b"stderr"]
    assert payload[kinds[b"stdout"]] == b"out\n" and payload[kinds[b"stderr"]] == b"err\n"
    assert json.loads(payload[kinds[b"error"]])["reason"] == "NonZeroExitCode"
    ends = [event.stream_id for event in told if isinstance(event, StreamEnded)]
    assert ends == [kinds[b"stdout"], kinds[b"stderr"]]
    assert told[-1] == GoAwayReceived(5, 0)


def test_port_forward() -> None:
    heard, _, payload = replay(RECORDED[0].with_name("containerd-forward-spdy.json"), 1 << 16)
    opened = [event for event in heard if isinstance(event, StreamOpened)]
    assert [find_header(event.headers, b"streamtype") for event in opened] == [b"error", b"data"]
    assert all(find_header(event.headers, b"port") == b"9001" for event in opened)
    assert payload == {3: b"through the tunnel\n"}
