"""Versions of the CNI specification."""

from __future__ import annotations

from collections.abc import Collection, Iterable

LATEST = "1.1.0"
#: What this runtime speaks, oldest first.
SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
#: A configuration without a version is one of before versions had to be named.
UNNAMED = "0.1.0"


def number(version: str) -> tuple[int, ...]:
    """A version to compare by.

    :raises ValueError: when it is not three numbers.
    """
    parts = version.split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"{version!r} is not a version such as 1.0.0")
    return tuple(int(part) for part in parts)


def at_least(version: str, least: str) -> bool:
    """Whether `version` is `least` or newer."""
    return number(version) >= number(least)


def best(wanted: Iterable[str], plugins: Iterable[Collection[str]]) -> str | None:
    """The newest of `wanted` that this runtime and every plugin speak; None when there is none."""
    all_plugins = [frozenset(versions) for versions in plugins]
    for version in sorted(set(wanted), key=number, reverse=True):
        if version in SUPPORTED and all(version in versions for versions in all_plugins):
            return version
    return None
