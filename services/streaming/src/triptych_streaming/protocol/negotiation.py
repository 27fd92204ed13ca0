"""Which protocol a client and this server speak: what is offered, and the best that both know."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from triptych_streaming.errors import HandshakeRefused
from triptych_streaming.protocol.channels import Version

PORT_FORWARD = "portforward.k8s.io"


class Kind(enum.Enum):
    """What a session is, by the first part of its URL's path."""

    EXEC = "exec"
    ATTACH = "attach"
    PORT_FORWARD = "portforward"


@dataclass(frozen=True, slots=True)
class Subprotocol:
    """A WebSocket subprotocol of exec, attach or old port-forward: version and form of its messages."""

    version: Version
    base64: bool = False


SPDY_REMOTE: Mapping[str, Version] = {
    "v4.channel.k8s.io": Version.V4,
    "v3.channel.k8s.io": Version.V3,
    "v2.channel.k8s.io": Version.V2,
    "channel.k8s.io": Version.V1,
}

WEBSOCKET_REMOTE: Mapping[str, Subprotocol] = {
    "v5.channel.k8s.io": Subprotocol(Version.V5),
    "v4.channel.k8s.io": Subprotocol(Version.V4),
    "v4.base64.channel.k8s.io": Subprotocol(Version.V4, base64=True),
    "channel.k8s.io": Subprotocol(Version.V1),
    "base64.channel.k8s.io": Subprotocol(Version.V1, base64=True),
    "": Subprotocol(Version.V1),
}

TUNNELS = ("SPDY/3.1+portforward.k8s.io", "v2.portforward.k8s.io")
"""WebSocket subprotocols that carry a SPDY connection; the second is the alpha name of the first."""

WEBSOCKET_PORT_FORWARD: Mapping[str, Subprotocol] = {
    "v4.channel.k8s.io": Subprotocol(Version.V4),
    "v4.base64.channel.k8s.io": Subprotocol(Version.V4, base64=True),
    "portforward.k8s.io": Subprotocol(Version.V4),
    "": Subprotocol(Version.V1),
}


def negotiate_spdy(kind: Kind, offered: Sequence[str]) -> str:
    """The first protocol of the client's list that the server knows.

    :raises HandshakeRefused: 400 when the client names none, 403 when none is known.
    """
    known = (PORT_FORWARD,) if kind is Kind.PORT_FORWARD else tuple(SPDY_REMOTE)
    if not offered:
        raise HandshakeRefused(400, "the X-Stream-Protocol-Version header is required")
    for protocol in offered:
        if protocol in known:
            return protocol
    supported = [("X-Accepted-Stream-Protocol-Versions", each) for each in known]
    raise HandshakeRefused(
        403, f"no protocol in common: client {list(offered)}, server {list(known)}", supported
    )


def negotiate_websocket(kind: Kind, offered: Sequence[str]) -> str:
    """The best protocol for the server that the client offers; "" when it offers none.

    :raises HandshakeRefused: 403 when none is known.
    """
    if kind is Kind.PORT_FORWARD:
        known = (*TUNNELS, *(name for name in WEBSOCKET_PORT_FORWARD if name))
    else:
        known = tuple(name for name in WEBSOCKET_REMOTE if name)
    if not offered:
        return ""
    for protocol in known:
        if protocol in offered:
            return protocol
    raise HandshakeRefused(403, f"no subprotocol in common: client {list(offered)}, server {list(known)}")
