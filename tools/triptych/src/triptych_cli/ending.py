"""From a command line to the exit status of its program."""

from __future__ import annotations

import sys
from typing import NoReturn

import click
from triptych_errors import Code, TriptychError


def run(command: click.Command, name: str) -> NoReturn:
    """Run a command line; exits with 0, 1 when something failed, 2 for wrong input, 130 when interrupted.

    :param name: the program, as errors and help call it.
    """
    try:
        status = command.main(prog_name=name, standalone_mode=False)
    except TriptychError as error:
        click.echo(f"{name}: {error.message}", err=True)
        if error.hint:
            click.echo(f"hint: {error.hint}", err=True)
        sys.exit(2 if error.code is Code.INVALID_ARGUMENT else 1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    sys.exit(status if isinstance(status, int) else 0)
