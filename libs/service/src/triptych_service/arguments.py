"""All that a daemon's command line may say, and its `--help`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeVar

from triptych_service.commandline import Options, default_config
from triptych_service.daemon import Definition
from triptych_service.settings import LogLevel, ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


def parse(definition: Definition[S], argv: list[str]) -> Options:
    """As `commandline.parse`."""
    default = default_config(definition)
    parser = _Parser(prog=definition.name, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.table = definition.settings
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"configuration file (default {default}); FILE.d/*.toml over it",
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
    found = parser.parse_args(argv)
    return Options(
        found.config, found.log_level, found.check_config, found.print_config, found.config_reference
    )


class _Parser(argparse.ArgumentParser):
    """Makes the list of keys only when help is asked for."""

    table: type[ServiceSettings] = ServiceSettings

    def format_help(self) -> str:
        from triptych_service.reference import help_text

        self.epilog = f"configuration keys (TOML):\n{help_text(self.table)}"
        return super().format_help()
