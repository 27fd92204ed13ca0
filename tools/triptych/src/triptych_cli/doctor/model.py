"""What a check finds."""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triptych_cli.context import DaemonName
from triptych_cli.doctor.configured import DIRECTORY


class State(enum.Enum):
    """How bad a finding is."""

    OK = "ok"
    INFO = "info"
    WARNING = "warning"
    """Something will not work, or not well, for some pods."""
    ERROR = "error"
    """Pods will not run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    :param subject: what was looked at.
    :param detail: what was seen.
    :param remedy: a command or a sentence; empty when nothing is to be done.
    """

    state: State
    subject: str
    detail: str
    remedy: str = ""


Findings = Iterator[Finding]


def ok(subject: str, detail: str) -> Finding:
    return Finding(State.OK, subject, detail)


def info(subject: str, detail: str, remedy: str = "") -> Finding:
    return Finding(State.INFO, subject, detail, remedy)


def warning(subject: str, detail: str, remedy: str) -> Finding:
    return Finding(State.WARNING, subject, detail, remedy)


def error(subject: str, detail: str, remedy: str) -> Finding:
    return Finding(State.ERROR, subject, detail, remedy)


@dataclass(frozen=True, slots=True)
class Host:
    """The host being looked at.

    :param root: where its file system is; tests give a directory.
    :param sockets: of the daemons.
    :param settings: what the daemons' configuration files say, by daemon; the rest is at its default.
    :param config_dir: where these files are.
    """

    sockets: dict[DaemonName, str]
    settings: dict[DaemonName, dict[str, Any]] = field(default_factory=dict)
    root: Path = Path("/")
    config_dir: Path = DIRECTORY

    def path(self, name: str | Path) -> Path:
        """A path of the host."""
        return self.root / str(name).lstrip("/")

    def read(self, name: str | Path) -> str:
        """A file of the host without space at its ends; empty when it cannot be read."""
        try:
            return self.path(name).read_text(errors="replace").strip()
        except OSError:
            return ""

    def which(self, program: str, directories: tuple[str, ...] = ()) -> Path | None:
        """Where a program is: an absolute path, or a name in `directories` or the usual places."""
        if program.startswith("/"):
            found = self.path(program)
            return found if os.access(found, os.X_OK) else None
        for directory in directories or _PATH:
            candidate = self.path(directory) / program
            if os.access(candidate, os.X_OK) and candidate.is_file():
                return candidate
        return None

    def setting(self, daemon: DaemonName, dotted: str, default: Any) -> Any:
        """A configured value."""
        value: Any = self.settings.get(daemon, {})
        for key in dotted.split("."):
            if not isinstance(value, dict) or key not in value:
                return default
            value = value[key]
        return value


_PATH = tuple(f"{prefix}/{name}" for prefix in ("/usr/local", "/usr", "") for name in ("sbin", "bin"))


@dataclass(frozen=True, slots=True)
class Check:
    """A group of findings about one theme."""

    name: str
    title: str
    run: Callable[[Host], Findings]
