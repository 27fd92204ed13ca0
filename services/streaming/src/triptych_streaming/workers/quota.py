"""How many of something the sessions of this process may have at once, together."""

from __future__ import annotations

import resource
from collections.abc import Callable

_DESCRIPTOR_SHARE = 2


class Quota:
    """Counts what is taken.

    :param limit: gives how many there may be, as it is now.
    """

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._taken = 0

    def take(self) -> bool:
        """Take one; False when there is none left."""
        if self._taken >= self._limit():
            return False
        self._taken += 1
        return True

    def give(self) -> None:
        """Give one back."""
        self._taken -= 1


def descriptors() -> int:
    """Half of the descriptors that this process may have: the others are for clients and processes."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] // _DESCRIPTOR_SHARE
