"""Numbers of the protocol (draft-mbelshe-httpbis-spdy-00, section 2)."""

from __future__ import annotations

import enum

VERSION = 3
HEAD_SIZE = 8
CONTROL_BIT = 0x8000_0000
MAX_LENGTH = (1 << 24) - 1
MAX_STREAM_ID = (1 << 31) - 1
MAX_WINDOW = (1 << 31) - 1
INITIAL_WINDOW = 1 << 16
FLAG_FIN = 0x01


class FrameType(enum.IntEnum):
    """Types of control frames. There is no type 5 (NOOP of SPDY/2)."""

    SYN_STREAM = 1
    SYN_REPLY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    HEADERS = 8
    WINDOW_UPDATE = 9


class ControlFlag(enum.IntFlag):
    """Flags of SYN_STREAM, SYN_REPLY and HEADERS (FIN), SYN_STREAM (UNIDIRECTIONAL), SETTINGS (CLEAR)."""

    NONE = 0
    FIN = 0x01
    UNIDIRECTIONAL = 0x02
    CLEAR_SETTINGS = 0x01


class ResetStatus(enum.IntEnum):
    """Why a stream ended early (section 2.6.3)."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    UNSUPPORTED_VERSION = 4
    CANCEL = 5
    INTERNAL_ERROR = 6
    FLOW_CONTROL_ERROR = 7
    STREAM_IN_USE = 8
    STREAM_ALREADY_CLOSED = 9
    INVALID_CREDENTIALS = 10
    FRAME_TOO_LARGE = 11


class GoAwayStatus(enum.IntEnum):
    """Why a connection ends (section 2.6.6)."""

    OK = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


class SettingId(enum.IntEnum):
    """Names of settings (section 2.6.4)."""

    UPLOAD_BANDWIDTH = 1
    DOWNLOAD_BANDWIDTH = 2
    ROUND_TRIP_TIME = 3
    MAX_CONCURRENT_STREAMS = 4
    CURRENT_CWND = 5
    DOWNLOAD_RETRANS_RATE = 6
    INITIAL_WINDOW_SIZE = 7
    CLIENT_CERTIFICATE_VECTOR_SIZE = 8


class SettingFlag(enum.IntFlag):
    """Flags of one setting."""

    NONE = 0
    PERSIST_VALUE = 0x1
    PERSISTED = 0x2
