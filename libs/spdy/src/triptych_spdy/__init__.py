"""SPDY/3.1 as a Sans-I/O protocol engine, in the manner of h11 and h2.

`Connection` turns received bytes into events and calls into bytes; it opens no socket, starts no task and
knows no clock. One end of a byte stream:

    connection = Connection(Role.SERVER)
    for event in connection.receive_data(chunk):
        match event:
            case StreamOpened(stream_id=stream_id):
                connection.reply(stream_id)
            case DataReceived(stream_id=stream_id, data=data):
                connection.send_data(stream_id, data)
            case StreamEnded(stream_id=stream_id):
                connection.end_stream(stream_id)
    socket.sendall(connection.data_to_send())

The protocol is draft-mbelshe-httpbis-spdy-00 (SPDY/3) with the session window of SPDY/3.1. Kubernetes speaks
a dialect without flow control; that is the default here, see `Connection`.
"""

from triptych_spdy._connection import Connection, Limits, Role
from triptych_spdy._constants import (
    ControlFlag,
    FrameType,
    GoAwayStatus,
    ResetStatus,
    SettingFlag,
    SettingId,
)
from triptych_spdy._dictionary import DICTIONARY
from triptych_spdy._events import (
    DataReceived,
    Event,
    GoAwayReceived,
    HeadersReceived,
    PingAcknowledged,
    PingReceived,
    SettingsReceived,
    StreamEnded,
    StreamOpened,
    StreamReplied,
    StreamReset,
    WindowUpdated,
)
from triptych_spdy._frames import Setting
from triptych_spdy._headers import Headers, HeaderValue, find_header
from triptych_spdy.errors import FlowControlError, ProtocolError, StateError, TooManyStreams

__all__ = [
    "DICTIONARY",
    "Connection",
    "ControlFlag",
    "DataReceived",
    "Event",
    "FlowControlError",
    "FrameType",
    "GoAwayReceived",
    "GoAwayStatus",
    "HeaderValue",
    "Headers",
    "HeadersReceived",
    "Limits",
    "PingAcknowledged",
    "PingReceived",
    "ProtocolError",
    "ResetStatus",
    "Role",
    "Setting",
    "SettingFlag",
    "SettingId",
    "SettingsReceived",
    "StateError",
    "StreamEnded",
    "StreamOpened",
    "StreamReplied",
    "StreamReset",
    "TooManyStreams",
    "WindowUpdated",
    "find_header",
]
