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

from triptych_streaming.errors import TokenUnknown, TooManySessions
from triptych_streaming.records import Opened, Session, Waiting

log = logging.getLogger(__name__)

_TOKEN_BYTES = 16
_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Waiting)


def _name(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class SessionStore:
    """Sessions that wait, below `directory`, which is made and closed to others."""

    def __init__(self, directory: Path) -> None:
        self._waiting = directory / "waiting"
        self._claimed = directory / "claimed"
        for each in (self._waiting, self._claimed):
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
        waiting = Waiting(secrets.token_hex(6), now, now + int(lifetime * 1e9), session)
        path = self._waiting / _name(token)
        # Nobody can ask for this name before the token is given out, so no temporary name is needed.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb", buffering=0) as file:
                file.write(_ENCODER.encode(waiting))
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Opened(token, waiting)

    def exists(self, token: str) -> bool:
        """Whether the token leads to a session that nobody has claimed; it may still be expired."""
        return os.path.exists(self._waiting / _name(token))

    def claim(self, token: str) -> Waiting:
        """Take a session out of the store: no second claim of it succeeds, on any process.

        :raises TokenUnknown: wrong, used, or expired.
        """
        name = _name(token)
        taken = self._claimed / name
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
        now = time.time_ns()
        found = (self._read(Path(entry.path)) for entry in os.scandir(self._waiting))
        return [each for each in found if each is not None and each.expires_at > now]

    def sweep(self) -> int:
        """Remove what expired, and what a crash left between claim and removal; returns how many."""
        now = time.time_ns()
        removed = 0
        for directory in (self._waiting, self._claimed):
            for entry in os.scandir(directory):
                path = Path(entry.path)
                waiting = self._read(path)
                # A file that is half written belongs to a process that is writing it, or to a crash.
                expires = waiting.expires_at if waiting else _age(path) + 60 * 10**9
                if expires <= now:
                    with contextlib.suppress(FileNotFoundError):
                        path.unlink()
                        removed += 1
        return removed

    def _read(self, path: Path) -> Waiting | None:
        try:
            return _DECODER.decode(path.read_bytes())
        except (FileNotFoundError, msgspec.MsgspecError):
            return None


def _age(path: Path) -> int:
    """When a file was last written, Unix nanoseconds; 0 when it is gone."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
