"""`./dev`: the one entry for people who work on triptych."""

from __future__ import annotations

from typing import NoReturn

import click
from triptych_cli.context import Context
from triptych_cli.ending import run
from triptych_cli.lazy import Lazy, LazyGroup

COMMANDS = {
    "demo": Lazy("triptych_dev.demo.command:demo", "Run a pod through the three daemons, and look on."),
    "test": Lazy("triptych_dev.tiers:test", "Run the tests: all, or one tier."),
    "bench": Lazy("triptych_dev.benches.command:bench", "Measure, and print a table and a line of JSON."),
    "gen": Lazy("triptych_dev.gen:gen", "Generate the stubs from proto/."),
    "check": Lazy("triptych_dev.check:check", "Lint, types, boundaries between services, fresh stubs."),
    "doctor": Lazy("triptych_cli.doctor.command:doctor", "Check this host; each finding with its remedy."),
    "install": Lazy("triptych_dev.node.commands:install", "Put a node together on this machine."),
    "uninstall": Lazy("triptych_dev.node.commands:uninstall", "Take the node apart; nothing stays."),
    "package": Lazy(
        "triptych_dev.packaging.commands:package",
        "Build wheels, executables and a Debian package, and try them.",
    ),
    "pants": Lazy("triptych_dev.pants.commands:pants", "The same build under Pants."),
}
"""Every command: where it is and its line in the listing."""


@click.group(cls=LazyGroup, table=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Build, try, test and measure triptych from a checkout."""
    ctx.obj = Context()


def main() -> NoReturn:
    """Run the command line."""
    run(cli, "./dev")


if __name__ == "__main__":
    main()
