"""Mount.mount_options (KEP-5855): flags of a bind mount that a request may add."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from triptych_errors import FailedPrecondition, InvalidArgument
from triptych_linux import mounts
from triptych_linux.mounts import Attributes

# Options that say the same thing in different ways: the last one wins, two in one request contradict.
# The recursive forms (runtime-spec, config.md#linux-mount-options) also reach what is mounted below.
_FAMILIES: Final = (
    ("noexec", "exec"),
    ("nosuid", "suid"),
    ("nodev", "dev"),
    ("nosymfollow", "symfollow"),
    ("nodiratime", "diratime"),
    ("noatime", "relatime", "strictatime"),
    ("rnoexec", "rexec"),
    ("rnosuid", "rsuid"),
    ("rnodev", "rdev"),
    ("rnosymfollow", "rsymfollow"),
    ("rnodiratime", "rdiratime"),
    ("rnoatime", "rrelatime", "rstrictatime"),
)
_RECURSIVE: Final = frozenset(option for family in _FAMILIES[6:] for option in family)
_FAMILY: Final = {option: family for family in _FAMILIES for option in family}
# Every OCI runtime of the last years knows these, told or not.
_UNIVERSAL: Final = frozenset(("noexec", "exec", "nosuid", "suid", "nodev", "dev"))
ALLOWED: Final = frozenset(_FAMILY)
_FLAGS: Final = {
    "exec": mounts.MOUNT_ATTR_NOEXEC,
    "suid": mounts.MOUNT_ATTR_NOSUID,
    "dev": mounts.MOUNT_ATTR_NODEV,
    "symfollow": mounts.MOUNT_ATTR_NOSYMFOLLOW,
    "diratime": mounts.MOUNT_ATTR_NODIRATIME,
}
_ATIME: Final = {
    "noatime": mounts.MOUNT_ATTR_NOATIME,
    "relatime": 0,
    "strictatime": mounts.MOUNT_ATTR_STRICTATIME,
}
_LOCKED: Final = ((os.ST_NOSUID, "nosuid"), (os.ST_NODEV, "nodev"), (os.ST_NOEXEC, "noexec"))


def check(options: Iterable[str], where: str, known: frozenset[str]) -> None:
    """Refuse what is no such flag: read-only, propagation and ID mappings have fields of their own.

    :param known: the options that the handler tells it knows; empty when it does not tell.
    :raises InvalidArgument: naming `where` and the option.
    :raises FailedPrecondition: when the handler does not know it.
    """
    seen: dict[tuple[str, ...], str] = {}
    for option in options:
        family = _FAMILY.get(option)
        if family is None:
            raise InvalidArgument(
                f"{where}: mount_options: {option!r} is none of {', '.join(sorted(ALLOWED))}"
            )
        if seen.setdefault(family, option) != option:
            raise InvalidArgument(f"{where}: mount_options: {seen[family]} and {option} contradict")
        if option not in _UNIVERSAL and known and option not in known:
            raise FailedPrecondition(f"{where}: mount_options: the runtime handler does not know {option}")


def merge(base: list[str], options: Iterable[str]) -> list[str]:
    """`base` without what `options` contradict, then `options`, each once."""
    wanted = list(dict.fromkeys(options))
    families = {_FAMILY[option] for option in wanted}
    return [option for option in base if _FAMILY.get(option) not in families] + wanted


def of_top(options: Iterable[str]) -> list[str]:
    """The options of the topmost mount, said without the recursive ones, which win."""
    top: dict[tuple[str, ...], str] = {}
    for option in sorted(options, key=_RECURSIVE.__contains__):
        plain = option[1:] if option in _RECURSIVE else option
        top[_FAMILY[plain]] = plain
    return list(top.values())


def attributes(options: Iterable[str]) -> list[Attributes]:
    """What the options change of a mount, those last that reach what is mounted below."""
    return sorted(map(_change, options), key=lambda change: change.recursive)


def _change(option: str) -> Attributes:
    recursive = option in _RECURSIVE
    name = option[1:] if recursive else option
    if name in _ATIME:
        return Attributes(_ATIME[name], mounts.MOUNT_ATTR__ATIME, recursive)
    if name in _FLAGS:
        return Attributes(0, _FLAGS[name], recursive)
    return Attributes(_FLAGS[name.removeprefix("no")], 0, recursive)


def of_mount(path: str) -> list[str]:
    """The flags of the mount that a host path lies on, or would, which a user namespace may not clear.

    Who binds it there has to repeat them (mount_namespaces(7)): otherwise OCI runtimes fail when they make
    it read-only, or lose the flags.
    """
    while not os.path.exists(path):
        path = os.path.dirname(path)
    flags = os.statvfs(path).f_flag
    return [name for flag, name in _LOCKED if flags & flag]
