"""Restart without waiting for sessions.

A service manager starts the new process only when the old one's main process is gone, but the old one must
live on until its sessions have ended. So under a manager the main process is a stand-in: a fork from before
the first import, that holds nothing, passes signals on, and leaves as soon as the daemon says that it has
released its sockets. The daemon itself then drains in the background (`KillMode=process` lets it). When the
stand-in is killed, the kernel ends the daemon as SIGTERM does: nobody would, with the stand-in gone.

The stand-in shares its few megabytes with the daemon, which started as its copy.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

_VARIABLE = "NOTIFY_SOCKET"
_DAEMON_VARIABLES = ("LISTEN_PID", "WATCHDOG_PID")
_PR_SET_PDEATHSIG = 1
_released = -1


def stand_in() -> None:
    """Under a service manager: fork, become the stand-in in the parent, and go on in the child.

    Call while the process has one thread and has imported next to nothing.
    """
    global _released
    if not os.environ.get(_VARIABLE):
        return
    read, write = os.pipe()
    parent = os.getpid()
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    child = os.fork()
    if child:
        os.close(write)
        _watch(child, read, signals)
    os.close(read)
    _released = write
    _end_with_parent(signal.SIGTERM)
    if os.getppid() != parent:  # killed before that
        os._exit(128 + signal.SIGKILL)
    for name in _DAEMON_VARIABLES:
        if name in os.environ:
            os.environ[name] = str(os.getpid())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def released(status: int = 0) -> None:
    """Tell the stand-in, if there is one, that this process holds nothing that its successor needs.

    :param status: its exit status.
    """
    global _released
    if _released >= 0:
        _end_with_parent(0)
        with contextlib.suppress(OSError):
            os.write(_released, bytes((status,)))
        os.close(_released)
        _released = -1


def _end_with_parent(number: int) -> None:
    """Let the kernel send a signal when the parent ends; 0 for none (prctl(2), PR_SET_PDEATHSIG)."""
    import ctypes  # the stand-in does without

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)


def _watch(child: int, pipe: int, signals: set[signal.Signals]) -> None:
    """Pass signals on until the daemon ends or has released; exits with its status, or the one it told."""
    for number in signals:
        signal.signal(number, lambda number, frame: _pass_on(child, number))
    _close_passed_sockets()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    told = os.read(pipe, 1)
    if told:
        os._exit(told[0])
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _pass_on(child: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def _close_passed_sockets() -> None:
    """The daemon has them; a stand-in that kept them would keep connections that nobody takes."""
    count = os.environ.get("LISTEN_FDS", "")
    for descriptor in range(3, 3 + int(count) if count.isdigit() else 3):
        with contextlib.suppress(OSError):
            os.close(descriptor)
    sys.stdout.flush()
