"""ttrpc over NRI's multiplexer: unary calls in both directions over one unix stream socket.

`Peer` is what a program uses: one end, driven by asyncio.

    peer = Peer(sock)
    peer.serve("nri.pkg.api.v1alpha1.Runtime", {"RegisterPlugin": (RegisterPluginRequest, register)})
    await peer.start()
    answer = await peer.call(PLUGIN, "Configure", request, ConfigureResponse, timeout=2)
    await peer.close()

`Connection` below it is the protocol without I/O, in the manner of h11: received bytes become events, calls
and answers become bytes; it opens no socket, starts no task and knows no clock.

ttrpc is https://github.com/containerd/ttrpc/blob/main/PROTOCOL.md; streams are not spoken, NRI has none.
"""

from triptych_ttrpc._connection import Connection, Role
from triptych_ttrpc._events import Event, RequestReceived, RequestRefused, ResponseReceived
from triptych_ttrpc._frames import MAX_MESSAGE
from triptych_ttrpc._peer import Peer
from triptych_ttrpc._serving import Handlers
from triptych_ttrpc.errors import (
    CallTimeout,
    ConnectionClosed,
    ProtocolError,
    RemoteError,
    StateError,
    TooLarge,
)

__all__ = [
    "MAX_MESSAGE",
    "CallTimeout",
    "Connection",
    "ConnectionClosed",
    "Event",
    "Handlers",
    "Peer",
    "ProtocolError",
    "RemoteError",
    "RequestReceived",
    "RequestRefused",
    "ResponseReceived",
    "Role",
    "StateError",
    "TooLarge",
]
