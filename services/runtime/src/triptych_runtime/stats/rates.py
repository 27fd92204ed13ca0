"""CPU usage per second from two readings (`usage_nano_cores`)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from triptych_runtime.stats.readers import CpuSample

_SECOND = 1_000_000_000
_MIN_WINDOW = _SECOND // 10
_WINDOW = 10 * _SECOND


@dataclass(frozen=True, slots=True)
class _Base:
    timestamp: int
    usage: int


class Rates:
    """Remembers readings, so that a later one gives a rate.

    The window reaches back to a reading between 0.1 s and about 10 s old, so that two clients who ask
    in turn do not spoil each other's numbers. The first reading of a container is averaged over its life.
    """

    def __init__(self) -> None:
        self._old: dict[str, _Base] = {}
        self._new: dict[str, _Base] = {}

    def nano_cores(self, key: str, sample: CpuSample, started_at: int) -> int | None:
        """Nanoseconds of CPU a second.

        :param started_at: when what `key` names began, Unix nanoseconds; 0 if that is not known.
        :returns: None when there is nothing to compare with.
        """
        new = self._new.get(key)
        if new is not None and sample.timestamp - new.timestamp >= _WINDOW:
            self._old[key] = new
            self._new[key] = new = _Base(sample.timestamp, sample.usage)
        elif new is None:
            self._new[key] = _Base(sample.timestamp, sample.usage)
            if started_at:
                self._old[key] = _Base(started_at, 0)
        base = self._base(key, sample)
        if base is None:
            return None
        seconds = sample.timestamp - base.timestamp
        return max(sample.usage - base.usage, 0) * _SECOND // seconds

    def _base(self, key: str, sample: CpuSample) -> _Base | None:
        for candidate in (self._new.get(key), self._old.get(key)):
            if candidate is not None and sample.timestamp - candidate.timestamp >= _MIN_WINDOW:
                return candidate
        return None

    def keep(self, keys: Collection[str]) -> None:
        """Forget all but these."""
        for table in (self._old, self._new):
            for key in table.keys() - set(keys):
                del table[key]
