"""What the settings of the runtime daemon must be beyond their types."""

from __future__ import annotations

from collections.abc import Iterator

from triptych_service import Problem

from triptych_runtime.cgroups import NoCgroups, require_driver
from triptych_runtime.settings import Settings


def check(settings: Settings) -> Iterator[Problem]:
    """What a start would refuse, or what no pod could be made with."""
    enabled = [name for name, handler in settings.handlers.items() if handler.enabled]
    chosen = settings.default_handler
    if chosen and chosen not in enabled:
        state = "is turned off" if chosen in settings.handlers else "is not in [handlers]"
        text = (
            f"expected one of {', '.join(map(repr, enabled)) or 'no handler'}, got {chosen!r}, which {state}"
        )
        yield Problem("default_handler", text)
    try:
        require_driver(settings.cgroup_driver.value)
    except NoCgroups as error:
        yield Problem("cgroup_driver", str(error))
