"""Terminals: the master that the OCI runtime hands over, its size, and its end of input."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
import termios
from pathlib import Path

from triptych_streaming.errors import ExecFailed

_LONGEST = 107


class ConsoleSocket:
    """The socket that `--console-socket` names; the runtime sends one descriptor and leaves.

    :ivar path: a name of it that is short enough for a socket, good for every process that sees ours.
    """

    def __init__(self, path: Path) -> None:
        self._file = path
        self._directory = -1
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            if len(os.fsencode(path)) > _LONGEST:
                self._directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                self.path = f"/proc/{os.getpid()}/fd/{self._directory}/{path.name}"
            self._socket.setblocking(False)
            self._socket.bind(self.path)
            self._socket.listen(1)
        except BaseException:
            self.close()
            raise

    def receive(self) -> int:
        """The master, non-blocking. To be called when the runtime has ended well: it sent it by then.

        :raises ExecFailed: nothing was sent.
        """
        try:
            connection, _ = self._socket.accept()
        except BlockingIOError:
            raise ExecFailed("the OCI runtime sent no terminal") from None
        with connection:
            connection.settimeout(1.0)
            descriptors = array.array("i")
            _, ancillary, _, _ = connection.recvmsg(256, socket.CMSG_SPACE(descriptors.itemsize))
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        if not descriptors:
            raise ExecFailed("the OCI runtime sent no terminal")
        os.set_inheritable(descriptors[0], False)
        os.set_blocking(descriptors[0], False)
        return descriptors[0]

    def close(self) -> None:
        self._socket.close()
        if self._directory >= 0:
            os.close(self._directory)
            self._directory = -1
        self._file.unlink(missing_ok=True)


def resize(master: int, width: int, height: int) -> None:
    """Set a terminal's size; the kernel signals its foreground processes."""
    with contextlib.suppress(OSError):
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))


def end_of_input(master: int, last: bytes) -> bytes:
    """What to type so that a reader in line mode sees the end of its input; nothing in raw mode.

    :param last: the character that was typed before, if any. In a line, the first one only sends that off.
    """
    try:
        settings = termios.tcgetattr(master)
    except (OSError, termios.error):
        return b""
    if not settings[3] & termios.ICANON:
        return b""
    character = settings[6][termios.VEOF]
    if not isinstance(character, bytes):
        return b""
    return character if last in (b"", b"\n", b"\r", character) else character * 2
