"""A client of streaming servers, as kubelet and crictl are one: exec, attach and port-forward.

Over SPDY/3.1, WebSocket, and SPDY tunnelled through WebSocket; works against any CRI runtime's URLs. The
tests, the benchmarks and the demo speak through it.
"""

from __future__ import annotations

from triptych_dev.streamclient.forward import (
    FORWARD_PROTOCOLS,
    TUNNEL_PROTOCOL,
    Forward,
    Forwarder,
    portforward_spdy,
    portforward_tunnel,
)
from triptych_dev.streamclient.remote import Remote, Result, attach_spdy, exec_spdy, exit_code, remote_spdy
from triptych_dev.streamclient.spdy import (
    REMOTE_PROTOCOLS,
    OnData,
    SpdySession,
    Stream,
    UpgradeRefused,
    connect_spdy,
)
from triptych_dev.streamclient.websocket import Messages, encode_message, exec_websocket, open_websocket

__all__ = [
    "FORWARD_PROTOCOLS",
    "REMOTE_PROTOCOLS",
    "TUNNEL_PROTOCOL",
    "Forward",
    "Forwarder",
    "Messages",
    "OnData",
    "Remote",
    "Result",
    "SpdySession",
    "Stream",
    "UpgradeRefused",
    "attach_spdy",
    "connect_spdy",
    "encode_message",
    "exec_spdy",
    "exec_websocket",
    "exit_code",
    "open_websocket",
    "portforward_spdy",
    "portforward_tunnel",
    "remote_spdy",
]
