"""Modules that libraries import on the way and daemons rarely use: loaded when something of them is used.

asyncio imports `ssl`, and with it OpenSSL, for everybody; protobuf imports its implementation in Python next
to the one in C; and so on. Together that is a sixth of a daemon's memory. A module named here is made empty,
and filled at the first look at one of its attributes; nobody notices but the allocator. What is loaded
already stays. Import before all else.
"""

from __future__ import annotations

import sys
import threading
import typing
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from importlib.abc import Loader  # which itself takes half a megabyte


class _NodeVisitor:
    """Does as `ast.NodeVisitor`, which `inspect` derives a class from that finds classes in source code."""

    def visit(self, node: Any) -> Any:
        import ast

        return ast.NodeVisitor.visit(cast("ast.NodeVisitor", self), node)

    def generic_visit(self, node: Any) -> Any:
        import ast

        return ast.NodeVisitor.generic_visit(cast("ast.NodeVisitor", self), node)


_POSTPONED: Mapping[str, Mapping[str, Any]] = {
    "ast": {"NodeVisitor": _NodeVisitor},
    "asyncio.sslproto": {},
    "calendar": {},
    "email.utils": {},
    "google.protobuf.internal.python_message": {},
    "importlib.metadata": {},
    "ipaddress": {},
    "locale": {},
    "msgspec.inspect": {},
    "pkgutil": {},
    "random": {},
    "ssl": {},
    "tarfile": {},
    "tempfile": {},
    "traceback": {},
    # What gRPC and msgspec take of it is in `typing`, but for a mark that only type checkers read.
    "typing_extensions": {
        "NotRequired": typing.NotRequired,
        "Required": typing.Required,
        "Self": typing.Self,
        "get_type_hints": typing.get_type_hints,
        "override": lambda method: method,
    },
}
"""Names of modules, with attributes that need no load."""


class _Postponed(ModuleType):
    """A module that is not loaded yet; an ordinary one afterwards."""

    def __getattribute__(self, name: str) -> Any:
        # The import system looks at __spec__, __path__ and their like of every module.
        if (name.startswith("__") and name != "__all__") or name in _POSTPONED[self.__name__]:
            return ModuleType.__getattribute__(self, name)
        _load(self)
        return ModuleType.__getattribute__(self, name)  # the class is another one by now


_lock = threading.RLock()


def _load(module: ModuleType) -> None:
    """Fill a module; other threads wait for the whole of it, as with any import."""
    with _lock:
        spec = module.__spec__
        later: Any = spec.loader if spec is not None else None
        if spec is None or not isinstance(later, _Later):
            return  # another thread was first, or its own code looks at it
        module.__loader__ = spec.loader = later.real
        try:
            later.real.exec_module(module)
        except BaseException:
            spec.loader = cast("Loader", later)
            raise
        module.__class__ = ModuleType


class _Later:
    """Makes a module without what is in it."""

    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Postponed(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_POSTPONED[module.__name__])


class _Finder:
    """Finds the modules to postpone, before the finders that would load them."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _POSTPONED:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = cast("Loader", _Later(spec.loader))
        return spec


sys.meta_path.insert(0, _Finder())
