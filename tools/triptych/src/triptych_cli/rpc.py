"""Channels to the daemons, and their errors in words that a person can act on."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import grpc
from triptych_errors import Code

from triptych_cli.context import Context, DaemonName
from triptych_cli.errors import CallFailed, CliError, DaemonDown

_MAX_MESSAGE_BYTES = 64 << 20


@contextlib.contextmanager
def channel(context: Context, daemon: DaemonName) -> Iterator[grpc.Channel]:
    """A channel to a daemon's socket, closed at the end; gRPC errors inside become `CliError`.

    :raises DaemonDown: the socket is not there, not ours to use, or not served.
    :raises CallFailed: the daemon answered with an error.
    """
    socket = context.sockets[daemon]
    check_socket(socket, daemon)
    options = [
        ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
        ("grpc.default_authority", "localhost"),
        ("grpc.enable_http_proxy", 0),
    ]
    with grpc.insecure_channel(f"unix:{socket}", options) as opened:
        try:
            yield opened
        except grpc.RpcError as error:
            raise translate(error, socket, daemon) from None


def check_socket(socket: str, daemon: DaemonName) -> None:
    """Tell what is wrong with a socket before gRPC does so in its own words.

    :raises DaemonDown: it is missing or closed to this user.
    """
    if not os.path.exists(socket):
        raise DaemonDown(
            f"{daemon.unit} is not running: {socket} does not exist", hint=f"systemctl start {daemon.unit}"
        )
    if not os.access(socket, os.R_OK | os.W_OK):
        raise DaemonDown(f"{socket} is closed to this user", hint="run as root: sudo triptych ...")


def translate(error: grpc.RpcError, socket: str, daemon: DaemonName) -> CliError:
    """A gRPC error as a sentence with a hint."""
    if not isinstance(error, grpc.Call):
        return CallFailed(f"{daemon.unit}: {error}", Code.UNKNOWN)
    code, details = error.code(), error.details() or "no details"
    if code is grpc.StatusCode.UNAVAILABLE and ("connect" in details or "Connection" in details):
        return DaemonDown(
            f"{daemon.unit} does not answer on {socket}",
            hint=f"systemctl status {daemon.unit}; journalctl -u {daemon.unit}",
        )
    hint = None
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        hint = "give it longer with --timeout SECONDS"
    if code is grpc.StatusCode.UNIMPLEMENTED:
        hint = f"is {daemon.unit} an older version than this command? triptych status"
    return CallFailed(details, Code[code.name], hint=hint)
