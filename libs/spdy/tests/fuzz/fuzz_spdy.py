"""Coverage-guided fuzzing of the SPDY engine.

python libs/spdy/tests/fuzz/fuzz_spdy.py -max_total_time=60 [corpus directory]

The first byte chooses the role, flow control and how the rest is cut. Anything but events and a
ProtocolError, or memory beyond the limits, is a finding.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["triptych_spdy"]):
    import triptych_spdy as spdy

LIMITS = spdy.Limits(streams=8, headers=16, header_bytes=4096, control_bytes=8192, stream_faults=20)


def one(data: bytes) -> None:
    """One input."""
    if not data:
        return
    choice, data = data[0], data[1:]
    role = spdy.Role.CLIENT if choice & 1 else spdy.Role.SERVER
    connection = spdy.Connection(role, LIMITS, flow_control=bool(choice & 2))
    if role is spdy.Role.CLIENT:
        for _ in range(3):
            connection.open_stream([(b"streamtype", b"data")])
    cut = (choice >> 2) + 1
    try:
        for start in range(0, len(data), cut):
            for event in connection.receive_data(data[start : start + cut]):
                _react(connection, event)
            assert len(connection.open_streams) <= LIMITS.streams + 3
    except spdy.ProtocolError as error:
        assert len(str(error)) < 1000
        assert connection.receive_data(b"more") == []
    assert len(connection.data_to_send()) < 4096 + 16 * len(data)


def _react(connection: spdy.Connection, event: spdy.Event) -> None:
    if isinstance(event, spdy.StreamOpened):
        if connection.is_open(event.stream_id) and not event.unidirectional:
            connection.reply(event.stream_id)
    elif isinstance(event, spdy.DataReceived):
        connection.acknowledge(event.stream_id, len(event.data))
        if connection.can_send(event.stream_id):
            size = min(4, connection.send_window(event.stream_id))
            connection.send_data(event.stream_id, bytes(size))
    elif isinstance(event, spdy.StreamEnded):
        connection.end_stream(event.stream_id) if connection.can_send(event.stream_id) else None


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
