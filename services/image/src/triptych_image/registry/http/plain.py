"""Hosts that turned out to speak plain HTTP where either would do."""

from __future__ import annotations

from typing import Final

from triptych_image.registry.http.origin import Origin

_MOST: Final = 256


class PlainHosts:
    """Remembers them, so that not every connection begins with a TLS hello that comes to nothing.

    Only asked where plain HTTP is allowed. Forgotten at the first failure: the host may speak TLS by now.
    """

    def __init__(self) -> None:
        self._known: dict[Origin, None] = {}

    def __contains__(self, origin: Origin) -> bool:
        return origin in self._known

    def add(self, origin: Origin) -> None:
        """The host answered a TLS hello with something else."""
        while len(self._known) >= _MOST:
            del self._known[next(iter(self._known))]
        self._known[origin] = None

    def forget(self, origin: Origin) -> bool:
        """Plain HTTP did not work; returns whether it was remembered."""
        if origin not in self._known:
            return False
        del self._known[origin]
        return True
