"""The directory where sessions wait for their client.

All streaming processes of the node share it, so a token works on any of them and survives their restarts.
A file is named by a hash of its token: neither the disk nor the time that a lookup takes tells anything of
it. To claim a session is to rename its file, which the kernel lets exactly one process do.

Every call is a few system calls on tmpfs, well under a millisecond, so none leaves the event loop.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import secrets
import time
from pathlib import Path

import msgspec
from triptych_service import tracing

from triptych_streaming.errors import TokenUnknown, TooManySessions
from triptych_streaming.records import Opened, Session, Waiting

log = logging.getLogger(__name__)

_TOKEN_BYTES = 16
_ASIDE_NS = 60 * 10**9
"""How long a file may be on its way in or out, which takes its process no millisecond."""
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Waiting)


def _name(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class SessionStore:
    """Sessions that wait, below `directory`, which is made and closed to others."""

    def __init__(self, directory: Path) -> None:
        self._waiting = directory / "waiting"
        self._aside = directory / "aside"
        for each in (self._waiting, self._aside):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)

    def open(self, session: Session, *, lifetime: float, limit: int) -> Opened:
        """Let a session wait for `lifetime` seconds.

        :raises TooManySessions: `limit` sessions wait already.
        """
        count = len(os.listdir(self._waiting))
        if count >= limit and count - self.sweep() >= limit:
            raise TooManySessions(
                f"{count} sessions wait for their client, {limit} are allowed",
                hint="see limits.tokens and timeouts.token of the streaming daemon",
            )
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        now = time.time_ns()
        opener = tracing.current.get()
        trace = opener.header if opener is not None else ""
        waiting = Waiting(secrets.token_hex(6), now, now + int(lifetime * 1e9), session, trace)
        name = _name(token)
        draft = self._aside / name
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb", buffering=0) as file:
                file.write(_ENCODER.encode(waiting))
                os.utime(descriptor, ns=(now, waiting.expires_at))
            os.rename(draft, self._waiting / name)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return Opened(token, waiting)

    def exists(self, token: str) -> bool:
        """Whether the token leads to a session that nobody has claimed and that is not expired."""
        return _expiry(self._waiting / _name(token)) > time.time_ns()

    def claim(self, token: str) -> Waiting:
        """Take a session out of the store: no second claim of it succeeds, on any process.

        :raises TokenUnknown: wrong, used, or expired.
        """
        name = _name(token)
        taken = self._aside / name
        try:
            os.rename(self._waiting / name, taken)
        except FileNotFoundError:
            raise TokenUnknown("no such session") from None
        try:
            waiting = _DECODER.decode(taken.read_bytes())
        except msgspec.MsgspecError as error:
            log.warning("a session's file cannot be read", extra={"file": name, "error": str(error)})
            raise TokenUnknown("no such session") from None
        finally:
            taken.unlink()
        if waiting.expires_at <= time.time_ns():
            raise TokenUnknown("no such session")
        return waiting

    def waiting(self) -> list[Waiting]:
        """The sessions that wait and are not expired."""
        found: list[Waiting] = []
        for entry in os.scandir(self._waiting):
            with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
                found.append(_DECODER.decode(Path(entry.path).read_bytes()))
        return [each for each in found if each.expires_at > time.time_ns()]

    def sweep(self) -> int:
        """Remove what expired, and what a crash left half way; returns how many."""
        now = time.time_ns()
        removed = 0
        for directory, latest in ((self._waiting, now), (self._aside, now - _ASIDE_NS)):
            for entry in os.scandir(directory):
                if _expiry(Path(entry.path)) <= latest:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(entry.path)
                        removed += 1
        return removed


def _expiry(path: Path) -> int:
    """A file's expiry, Unix nanoseconds, kept as its time of modification; 0 when it is gone."""
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0
