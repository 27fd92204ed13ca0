"""Which host is tried next, when, and what is told when none is left."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from triptych_errors import TriptychError
from triptych_oci import InvalidDocument, UnsupportedDocument

from triptych_image.registry.errors import (
    AccessDenied,
    ContentMismatch,
    ContentNotFound,
    ContentTooLarge,
    NoProgress,
    RegistryUnavailable,
    UnexpectedResponse,
)
from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.hosts import Host
from triptych_image.registry.settings import RegistrySettings

log = logging.getLogger(__name__)

_FIRST_DELAY: Final = 0.25
_MOST_DELAY: Final = 15.0
# A mirror that asks for more patience than this is passed over.
_MIRROR_PATIENCE: Final = 5.0
# Fewer bytes between two failures do not count, so that a byte a request cannot go on forever.
_PROGRESS_BYTES: Final = 16 << 10
_UNREACHABLE: Final = frozenset({Failure.UNREACHABLE, Failure.UNTRUSTED, Failure.SLOW})


class HostHealth:
    """Remembers for a while which hosts could not be reached, so that others try them last."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def penalise(self, host: Host, seconds: float) -> None:
        now = time.monotonic()
        self._until = {base: until for base, until in self._until.items() if until > now}
        self._until[host.base] = now + seconds

    def forgive(self, host: Host) -> None:
        self._until.pop(host.base, None)

    def order(self, hosts: Sequence[Host]) -> list[Host]:
        """The hosts with those under a penalty last, else in their order."""
        now = time.monotonic()
        return sorted(hosts, key=lambda host: self._until.get(host.base, 0.0) > now)


class Walk:
    """One walk along the hosts for one thing.

    A host keeps its turn while trying again makes sense and its budget lasts; the one configured last has
    all the time there is, or who comes last where that one cannot be reached. Use: `next`, do it, then
    `failed` and again `next`, until it works or `next` raises.

    :param what: names the thing in errors.
    :param verb: what is done with it, "pull" or "push".
    """

    def __init__(
        self,
        hosts: Sequence[Host],
        settings: RegistrySettings,
        health: HostHealth,
        what: str,
        *,
        verb: str = "pull",
    ) -> None:
        self._hosts = health.order(hosts)
        # Mostly the registry itself. Who comes behind it was put there by a penalty.
        self._decisive = hosts[-1] if hosts else None
        self._settings = settings
        self._health = health
        self._what = what
        self._verb = verb
        self._index = 0
        self._attempts = 0
        self._delay = 0.0
        self._mark = time.monotonic()
        self._fresh_bytes = 0
        self._moved = False
        self._failures: dict[str, AttemptFailed] = {}
        self._timed_out = False

    @property
    def host(self) -> Host:
        """Whose turn it is."""
        return self._hosts[self._index]

    async def next(self) -> Host:
        """Whose turn it is, after the pause that is due.

        :raises TriptychError: when no host is left, saying what each of them said.
        """
        if self._index >= len(self._hosts):
            raise self.error()
        if self._delay:
            await asyncio.sleep(self._delay)
            self._delay = 0.0
        self._attempts += 1
        return self.host

    def progressed(self, count: int) -> None:
        """Bytes arrived."""
        self._fresh_bytes += count
        if self._fresh_bytes >= _PROGRESS_BYTES:
            self._fresh_bytes = 0
            self._attempts = 0
            self._moved = True
            self._mark = time.monotonic()

    def succeeded(self) -> None:
        """The host did what was asked."""
        self._health.forgive(self.host)

    def failed(self, failure: AttemptFailed) -> None:
        """An attempt failed: decide between the same host again, the next one, and the end."""
        host = self.host
        self._failures.pop(host.name, None)
        self._failures[host.name] = failure
        last = self._index == len(self._hosts) - 1
        patient = self._is_patient(host, failure, last)
        if failure.kind in _UNREACHABLE:
            self._health.penalise(host, self._settings.penalty_seconds)
        patience = self._settings.no_progress_seconds if patient else self._settings.host_seconds
        left = patience - (time.monotonic() - self._mark)
        pause = self._pause(failure)
        delay = max(pause, failure.retry_after or 0.0)
        tired = self._attempts >= self._settings.attempts
        self._timed_out = patient and failure.transient and pause >= left and not tired
        again = failure.transient and not tired and delay < left and (patient or self._worth(failure))
        log.info(
            "registry attempt failed",
            extra={
                "what": self._what,
                "host": host.name,
                "reason": failure.reason,
                "then": "retry" if again else "give up" if last else "next host",
            },
        )
        if again:
            self._delay = delay
        else:
            self._index += 1
            self._attempts = 0
            self._moved = False
            self._mark = time.monotonic()

    def _is_patient(self, host: Host, failure: AttemptFailed, last: bool) -> bool:
        """Whether a host is the one that is worth all the time there is."""
        if host is self._decisive:
            return last or failure.kind not in _UNREACHABLE
        told = self._failures.get(self._decisive.name) if self._decisive else None
        return last and told is not None and told.kind in _UNREACHABLE

    def _worth(self, failure: AttemptFailed) -> bool:
        """Whether any other host deserves another attempt."""
        if failure.kind is Failure.THROTTLED:
            return (failure.retry_after or 0.0) <= _MIRROR_PATIENCE
        return failure.kind is Failure.BROKEN and self._moved

    def _pause(self, failure: AttemptFailed) -> float:
        if failure.kind is Failure.BROKEN and self._moved and self._attempts <= 1:
            # A connection that broke while bytes came: go on at once.
            return 0.0
        delay = min(_MOST_DELAY, _FIRST_DELAY * 2.0 ** max(0, self._attempts - 1))
        return delay * random.uniform(0.5, 1.0)

    def error(self) -> TriptychError:
        """What to tell when nobody delivers: who is configured last decides, the others are listed."""
        if not self._failures:
            return ContentNotFound(f"{self._what}: no host is configured that may be asked for it")
        others = dict(self._failures)
        name = self._decisive.name if self._decisive else ""
        decisive = others.pop(name) if name in others else others.popitem()[1]
        text = f"{self._what}: {decisive}"
        if others:
            text += f" (tried too: {'; '.join(map(str, others.values()))})"
        if self._timed_out:
            return NoProgress(f"{text}; no progress for {self._settings.no_progress_seconds:g} s")
        if decisive.kind is Failure.DENIED:
            denied = f"{self._verb} access denied, repository does not exist or may require authorization"
            return AccessDenied(f"{denied}: {text}")
        return _ERRORS.get(decisive.kind, _unavailable)(text)


def _unavailable(text: str) -> TriptychError:
    return RegistryUnavailable(text)


_ERRORS: Final[dict[Failure, Callable[[str], TriptychError]]] = {
    Failure.NOT_FOUND: ContentNotFound,
    Failure.MISMATCH: ContentMismatch,
    Failure.MALFORMED: InvalidDocument,
    Failure.UNSUPPORTED: UnsupportedDocument,
    Failure.TOO_LARGE: ContentTooLarge,
    Failure.PROTOCOL: UnexpectedResponse,
    Failure.REFUSED: UnexpectedResponse,
}
