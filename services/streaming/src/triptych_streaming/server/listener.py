"""The listening socket: passed by the service manager, or made here; and taking connections from it."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Callable

from triptych_service import ConfigError

from triptych_streaming.errors import ListenFailed

log = logging.getLogger(__name__)

_TURN = 64
"""Connections taken in one go before established ones get their turn."""
_KEEPALIVE_SECONDS = 15
"""As Go's servers have it."""
_REST = 1.0
"""Seconds without taking any, after the process ran out of descriptors."""


def open_listener(
    passed: int | None, listen: str, *, backlog: int, tls: bool, insecure: bool
) -> socket.socket:
    """The socket to take connections from.

    One made here has SO_REUSEPORT, so that further instances may share the address; one that was passed is
    shared by inheriting it, and then no connection is lost when any instance goes.

    :param passed: a descriptor of a listening socket, which wins over `listen`.
    :raises ListenFailed: the address cannot be bound.
    :raises ConfigError: it was passed, and would serve plain HTTP to the network.
    """
    if passed is not None:
        listener = socket.socket(fileno=passed)
        if listener.family not in (socket.AF_INET, socket.AF_INET6):
            raise ListenFailed("the socket passed as `http` is not a TCP socket")
        host = listener.getsockname()[0]
        problem = exposure(host, tls=tls, insecure=insecure)
        if problem:
            raise ConfigError([f"the socket passed as `http`: {problem}"])
        listener.setblocking(False)
        return listener
    host, port = split(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise ListenFailed(f"http.listen {listen}: {os.strerror(error.errno or 0)}") from error
    return listener


def split(listen: str) -> tuple[str, int]:
    """Host and port of an address.

    :raises ValueError: saying what was expected.
    """
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not (port.isascii() and port.isdigit()) or int(port) > 0xFFFF:
        raise ValueError(f"expected host:port, got {listen!r}")
    try:
        return str(ipaddress.ip_address(host or "127.0.0.1")), int(port)
    except ValueError:
        if host == "localhost":
            return "127.0.0.1", int(port)
        raise ValueError(f"expected an IP address and a port, got {listen!r}") from None


def exposure(host: str, *, tls: bool, insecure: bool) -> str:
    """Why plain HTTP on an address is refused, "" when nothing is."""
    if tls or insecure or ipaddress.ip_address(host).is_loopback:
        return ""
    return (
        f"plain HTTP on {host} would show sessions to the network: "
        "set tls.certificate, or http.insecure = true if the network is trusted"
    )


def base_url(listener: socket.socket, *, tls: bool) -> str:
    """Where the kubelet reaches the listener; a wildcard address is reached by loopback."""
    host, port = listener.getsockname()[:2]
    address = ipaddress.ip_address(host)
    if address.is_unspecified:
        address = ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")
    name = f"[{address}]" if address.version == 6 else str(address)
    return f"{'https' if tls else 'http'}://{name}:{port}"


class Acceptor:
    """Gives each new connection to `on_connection`, from `start` to `stop`."""

    def __init__(self, listener: socket.socket, on_connection: Callable[[socket.socket], None]) -> None:
        self._listener = listener
        self._on_connection = on_connection
        self._loop = asyncio.get_running_loop()
        self._running = False
        self._stopped = False

    def start(self) -> None:
        if not (self._running or self._stopped):
            self._running = True
            self._loop.add_reader(self._listener.fileno(), self._ready)

    def stop(self, *, shared: bool) -> None:
        """Take no more, and close the listener.

        :param shared: others hold it too, and take what waits in it; else that is taken here first, because
            closing would reset it.
        """
        if self._stopped:
            return
        self._stopped = True
        self._pause()
        if not shared:
            while self._take():
                pass
        self._listener.close()

    def _pause(self) -> None:
        self._running = False
        self._loop.remove_reader(self._listener.fileno())

    def _ready(self) -> None:
        for _ in range(_TURN):
            if not self._take():
                return

    def _take(self) -> bool:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM) and self._running:
                log.error("cannot take connections", extra={"error": os.strerror(error.errno)})
                self._pause()
                self._loop.call_later(_REST, self.start)
            return False
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL):
            connection.setsockopt(socket.IPPROTO_TCP, option, _KEEPALIVE_SECONDS)
        self._on_connection(connection)
        return True
