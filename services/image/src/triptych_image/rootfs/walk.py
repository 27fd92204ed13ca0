"""Walking a tree that a container may change meanwhile, however deep it made it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(slots=True)
class _Level:
    """A directory on the way down.

    :ivar todo: directories in it that were not visited yet.
    """

    name: str
    identity: tuple[int, int]
    todo: list[str] = field(default_factory=list)


def walk(path: Path) -> Iterator[os.stat_result]:
    """What everything below a directory is, without the directory itself. Blocking.

    Goes from descriptor to descriptor, two at a time: a path may be longer than the kernel takes, and a
    directory may become a symlink that leads out. What goes away under our hands is left out.

    :raises OSError: when the directory cannot be opened.
    """
    top = os.open(path, _DIRECTORY)
    here = os.dup(top)
    try:
        levels = [_Level("", _identity(here))]
        yield from _read(here, levels[-1].todo)
        while levels[-1].todo or len(levels) > 1:
            if not levels[-1].todo:
                levels.pop()
                here = _replace(here, _up(here, top, levels))
                continue
            name = levels[-1].todo.pop()
            try:
                here = _replace(here, os.open(name, _DIRECTORY, dir_fd=here))
            except OSError:
                continue
            levels.append(_Level(name, _identity(here)))
            yield from _read(here, levels[-1].todo)
    finally:
        os.close(here)
        os.close(top)


def _read(fd: int, directories: list[str]) -> Iterator[os.stat_result]:
    with os.scandir(fd) as entries:
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if stat.S_ISDIR(info.st_mode):
                directories.append(entry.name)
            yield info


def _up(here: int, top: int, levels: list[_Level]) -> int:
    """The directory of the last level; where it was moved meanwhile, that of the last one still in place."""
    with contextlib.suppress(OSError):
        above = os.open("..", _DIRECTORY, dir_fd=here)
        if _identity(above) == levels[-1].identity:
            return above
        os.close(above)
    above = os.dup(top)
    for depth, level in enumerate(levels[1:], 1):
        try:
            below = os.open(level.name, _DIRECTORY, dir_fd=above)
        except OSError:
            del levels[depth:]
            break
        above = _replace(above, below)
        if _identity(above) != level.identity:
            # Another directory has its name, and none of what was to be visited.
            level.identity, level.todo = _identity(above), []
            del levels[depth + 1 :]
            break
    return above


def _replace(old: int, new: int) -> int:
    os.close(old)
    return new


def _identity(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino
