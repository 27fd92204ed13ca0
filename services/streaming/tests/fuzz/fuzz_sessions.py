"""Coverage-guided fuzzing of what the daemon takes from clients: requests, and every session protocol.

python services/streaming/tests/fuzz/fuzz_sessions.py -max_total_time=60 [corpus directory]

The first byte chooses the protocol. Anything but events, a refusal or a fault of the peer is a finding.
"""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["triptych_streaming.protocol"]):
    from triptych_streaming.errors import HandshakeRefused, PeerFault
    from triptych_streaming.protocol.channels import Channel, StreamSet, Version
    from triptych_streaming.protocol.handshake import RequestReader, judge, refusal
    from triptych_streaming.protocol.negotiation import WEBSOCKET_REMOTE
    from triptych_streaming.protocol.portforward_spdy import SpdyPortForward
    from triptych_streaming.protocol.portforward_websocket import TunnelPortForward, WebSocketPortForward
    from triptych_streaming.protocol.remotecommand_spdy import SpdyRemoteCommand
    from triptych_streaming.protocol.remotecommand_websocket import WebSocketRemoteCommand
    from triptych_streaming.protocol.status import Outcome
    from triptych_streaming.protocol.websocket import open_websocket

LIMIT = 1 << 16
STREAMS = StreamSet(stdin=True, stdout=True, tty=True)


def one(data: bytes) -> None:
    """One input."""
    if not data:
        return
    choice, data = data[0], data[1:]
    if choice < 64:
        _request(data)
    elif choice < 160:
        _remote(choice, data)
    else:
        _forward(choice, data)


def _request(data: bytes) -> None:
    try:
        request = RequestReader().feed(data)
        if request is not None:
            assert judge(request).response.startswith(b"HTTP/1.1 101 ")
    except HandshakeRefused as refused:
        answer = refusal(refused)
        head = answer.partition(b"\r\n\r\n")[0].decode("latin-1")
        assert head.startswith("HTTP/1.1 4") and len(head.split("\r\n")) <= 12


def _remote(choice: int, data: bytes) -> None:
    names = list(WEBSOCKET_REMOTE)
    command: SpdyRemoteCommand | WebSocketRemoteCommand
    if choice % 2:
        command = SpdyRemoteCommand(STREAMS, Version(choice % 4 + 1), "x")
    else:
        name = names[choice % len(names)]
        form = WEBSOCKET_REMOTE[name]
        command = WebSocketRemoteCommand(
            open_websocket(LIMIT), STREAMS, form.version, name, base64=form.base64
        )
    command.start()
    cut = choice % 16 + 1
    try:
        for start in range(0, len(data), cut):
            command.receive(data[start : start + cut])
            command.output(Channel.STDOUT, b"x")
            command.take()
    except PeerFault as fault:
        assert len(str(fault)) < 1000
    command.finish(Outcome(exit_code=1))
    command.take()


def _forward(choice: int, data: bytes) -> None:
    forward: SpdyPortForward | TunnelPortForward | WebSocketPortForward
    match choice % 3:
        case 0:
            forward = SpdyPortForward(streams=16)
        case 1:
            forward = TunnelPortForward(open_websocket(LIMIT), SpdyPortForward(streams=16), "x")
        case _:
            forward = WebSocketPortForward(open_websocket(LIMIT), [80, 81], "x", base64=bool(choice & 4))
    forward.start()
    cut = choice % 16 + 1
    try:
        for now, start in enumerate(range(0, len(data), cut)):
            for event in forward.receive(data[start : start + cut], now):
                pair = getattr(event, "pair", "")
                if pair:
                    forward.output(pair, b"x")
            forward.expire(now)
            forward.take()
    except PeerFault as fault:
        assert len(str(fault)) < 1000
    forward.finish()
    forward.take()


def main() -> None:
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
