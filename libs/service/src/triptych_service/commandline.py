"""A daemon's command line: its options, and the questions about configuration that it answers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from triptych_service.checks import check
from triptych_service.config import Loaded, load
from triptych_service.daemon import Definition
from triptych_service.settings import ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


@dataclass(frozen=True, slots=True)
class Options:
    """What a command line says.

    :param log_level: overrides `log.level` unless empty.
    :param check_config: a question to answer instead of serving, as are the ones below.
    """

    config: Path | None = None
    log_level: str | None = None
    check_config: bool = False
    print_config: bool = False
    config_reference: bool = False


def parse(definition: Definition[S], argv: list[str]) -> Options:
    """Parse the arguments; `--help`, `--version` and wrong ones end the process.

    What units write is understood without argparse, which would stay in memory as long as the daemon.
    """
    match argv:
        case []:
            return Options()
        case ["--config", file] if file and not file.startswith("-"):
            return Options(Path(file))
    from triptych_service import arguments

    return arguments.parse(definition, argv)


def default_config(definition: Definition[S]) -> Path:
    """Where a daemon's configuration is unless its command line says otherwise."""
    return Path(f"/etc/triptych/{definition.short_name}.toml")


def load_config(definition: Definition[S], options: Options) -> Loaded[S]:
    """Read the configuration that the command line names, and see that the daemon can work with it.

    :raises ConfigError: it is wrong.
    """
    loaded = _read(definition, options)
    check(definition, loaded)
    return loaded


def _read(definition: Definition[S], options: Options) -> Loaded[S]:
    path = options.config
    return load(definition.settings, path or default_config(definition), must_exist=path is not None)


def answer(definition: Definition[S], options: Options) -> bool:
    """Answer a question that the command line asks; False when the daemon is to run.

    :raises ConfigError: the configuration asked about is wrong.
    """
    from triptych_service import reference

    if options.config_reference:
        file = str(default_config(definition))
        sys.stdout.write(reference.reference_page(definition.settings, definition.name, file))
    elif options.check_config:
        files = ", ".join(map(str, load_config(definition, options).files)) or "nothing"
        sys.stdout.write(f"{definition.name}: the configuration is valid; read: {files}\n")
    elif options.print_config:
        loaded = _read(definition, options)
        sys.stdout.write(reference.effective(loaded.settings, loaded.origins))
    else:
        return False
    return True
