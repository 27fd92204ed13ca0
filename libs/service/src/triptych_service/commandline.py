"""A daemon's command line: its options, and the questions about configuration that it answers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TypeVar

from triptych_service.config import Loaded, load
from triptych_service.daemon import Definition
from triptych_service.settings import LogLevel, ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


def parse(definition: Definition[S], argv: list[str]) -> argparse.Namespace:
    """Parse the arguments; `--help`, `--version` and wrong ones end the process."""
    default = default_config(definition)
    parser = _Parser(prog=definition.name, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.table = definition.settings
    parser.add_argument(
        "--config", type=Path, help=f"configuration file (default {default}); FILE.d/*.toml over it"
    )
    parser.add_argument(
        "--log-level", choices=[level.value for level in LogLevel], help="overrides log.level"
    )
    question = parser.add_mutually_exclusive_group()
    question.add_argument("--check-config", action="store_true", help="check the configuration and exit")
    question.add_argument(
        "--print-config", action="store_true", help="print every setting and where it comes from, and exit"
    )
    question.add_argument(
        "--config-reference",
        action="store_true",
        help="print every key with its meaning (Markdown), and exit",
    )
    question.add_argument("--version", action="version", version=f"{definition.name} {definition.version}")
    return parser.parse_args(argv)


def default_config(definition: Definition[S]) -> Path:
    """Where a daemon's configuration is unless its command line says otherwise."""
    return Path(f"/etc/triptych/{definition.short_name}.toml")


def load_config(definition: Definition[S], options: argparse.Namespace) -> Loaded[S]:
    """Read the configuration that the command line names.

    :raises ConfigError: it is wrong.
    """
    path: Path | None = options.config
    return load(definition.settings, path or default_config(definition), must_exist=path is not None)


def answer(definition: Definition[S], options: argparse.Namespace) -> bool:
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
        loaded = load_config(definition, options)
        sys.stdout.write(reference.effective(loaded.settings, loaded.origins))
    else:
        return False
    return True


class _Parser(argparse.ArgumentParser):
    """Makes the list of keys only when help is asked for."""

    table: type[ServiceSettings] = ServiceSettings

    def format_help(self) -> str:
        from triptych_service.reference import help_text

        self.epilog = f"configuration keys (TOML):\n{help_text(self.table)}"
        return super().format_help()
