"""Runtime handlers: names that a pod may ask for, each an OCI runtime that was probed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from triptych_runtime.errors import HandlerUnusable, UnknownHandler
from triptych_runtime.ociruntime.command import OciRuntime
from triptych_runtime.spec import HandlerFeatures


@dataclass(frozen=True, slots=True)
class Handler:
    """A runtime handler.

    :param version: the first line of its `--version`.
    :param checkpoint: it can checkpoint and restore with CRIU.
    :param problem: why it cannot be used, "" when it can.
    """

    name: str
    runtime: OciRuntime
    version: str = ""
    features: HandlerFeatures = field(default_factory=HandlerFeatures)
    checkpoint: bool = False
    problem: str = ""


class Handlers:
    """All handlers that the configuration names; "" is the default one.

    :param default: the configured default; "" for the first that works.
    """

    def __init__(self, handlers: Mapping[str, Handler], default: str) -> None:
        self._handlers = dict(handlers)
        self._default = default

    @property
    def default(self) -> str:
        """The name of the default handler: the configured one, else the first that works."""
        usable = (handler.name for handler in self._handlers.values() if not handler.problem)
        return self._default or next(usable, next(iter(self._handlers), ""))

    def all(self) -> list[Handler]:
        return list(self._handlers.values())

    def put(self, handler: Handler) -> None:
        """Add a handler, or put it in the place of what was known of it."""
        self._handlers[handler.name] = handler

    def usable(self, name: str) -> bool:
        """Whether the handler of this very name is known to work."""
        handler = self._handlers.get(name)
        return handler is not None and not handler.problem

    def get(self, name: str) -> Handler:
        """The handler of a name, usable.

        :raises UnknownHandler: when it is not configured. :raises HandlerUnusable: when it cannot run.
        """
        handler = self.known(name)
        if handler.problem:
            raise HandlerUnusable(f"runtime handler {handler.name!r} cannot be used: {handler.problem}")
        return handler

    def known(self, name: str) -> Handler:
        """The handler of a name, usable or not; for what runs with it already.

        :raises UnknownHandler: when it is not configured.
        """
        handler = self.find(name)
        if handler is None:
            raise UnknownHandler(name, sorted(self._handlers))
        return handler

    def find(self, name: str) -> Handler | None:
        """The handler of a name, usable or not, None for none; for cleaning up."""
        return self._handlers.get(name or self.default)
