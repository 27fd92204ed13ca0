"""What SIGHUP does: read the files again, take what may change, say what became of each key."""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from triptych_service.config import plain
from triptych_service.settings import HIDDEN, Reload, ServiceSettings, Table, keys

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Table)
S = TypeVar("S", bound=ServiceSettings)


class Outcome(enum.Enum):
    """What became of a changed key."""

    APPLIED = "applied"
    NEEDS_RESTART = "needs a restart"


@dataclass(frozen=True, slots=True)
class Change:
    """One key whose value in the files is not the running one."""

    key: str
    old: Any
    new: Any
    outcome: Outcome
    secret: bool = False


def changes(old: Table, new: Table, prefix: str = "") -> Iterator[Change]:
    """The keys in which two settings of one class differ."""
    for key in keys(type(old)):
        before, after = getattr(old, key.name), getattr(new, key.name)
        if key.table is not None:
            yield from changes(before, after, f"{prefix}{key.name}.")
        elif before != after:
            live = key.setting.reload is Reload.LIVE
            outcome = Outcome.APPLIED if live else Outcome.NEEDS_RESTART
            yield Change(prefix + key.name, before, after, outcome, key.setting.secret)


def merge(old: T, new: T) -> T:
    """`old` with the live keys of `new`."""
    taken: dict[str, Any] = {}
    for key in keys(type(old)):
        if key.table is not None:
            taken[key.name] = merge(getattr(old, key.name), getattr(new, key.name))
        elif key.setting.reload is Reload.LIVE:
            taken[key.name] = getattr(new, key.name)
    return msgspec.structs.replace(old, **taken)


def report(found: list[Change]) -> None:
    """One log line a changed key; without the values of a secret one."""
    for change in found:
        log.info(
            "setting changed"
            if change.outcome is Outcome.APPLIED
            else "setting changed, but needs a restart",
            extra={
                "key": change.key,
                "old": HIDDEN if change.secret else plain(change.old),
                "new": HIDDEN if change.secret else plain(change.new),
                "outcome": change.outcome.value,
            },
        )
    if not found:
        log.info("reload found nothing changed")
