"""TLS inside TLS, for origins behind a proxy that itself is spoken to over TLS."""

from __future__ import annotations

import ssl
from typing import Final, cast

_CHUNK: Final = 64 << 10


class NestedTls:
    """The part of a non-blocking SSLSocket that streams use, over an SSLSocket in place of a socket.

    Its methods raise SSLWantReadError and SSLWantWriteError about the outer socket: what to wait for.
    """

    def __init__(self, outer: ssl.SSLSocket, context: ssl.SSLContext, server_hostname: str) -> None:
        self._outer = outer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._unsent = b""
        self._taken = 0
        self._inner = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)

    def do_handshake(self) -> None:
        """Go on with the handshake."""
        while True:
            try:
                self._inner.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            except ssl.SSLError:
                self._flush()  # the alert that says why
                raise
            else:
                self._flush()
                return

    def recv_into(self, buffer: memoryview) -> int:
        """Decrypted bytes; 0 at the end."""
        while True:
            try:
                # With a buffer it returns a number, whatever typeshed says.
                return cast(int, self._inner.read(len(buffer), buffer))
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()

    def send(self, data: memoryview) -> int:
        """Take some bytes and send them; after a wait it is called again with the same bytes."""
        while not self._taken:
            try:
                self._taken = self._inner.write(data[:_CHUNK])
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
        self._flush()
        taken, self._taken = self._taken, 0
        return taken

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """Two layers may hold back a record each, so no wait is for more than a byte."""

    def fileno(self) -> int:
        return self._outer.fileno()

    def close(self) -> None:
        self._outer.close()

    def _fill(self) -> None:
        data = self._outer.recv(_CHUNK)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        self._unsent += self._outgoing.read()
        while self._unsent:
            self._unsent = self._unsent[self._outer.send(self._unsent) :]
