"""The command itself."""

from __future__ import annotations

import click

from triptych_cli.context import Context
from triptych_cli.options import output_option, pass_context


@click.command()
@output_option
@pass_context
def status(context: Context) -> int:
    """One look at the three daemons: versions, health, memory, pods, images, pulls and sessions.

    Ends with status 0 when all three serve and every condition of the runtime is met, else 1.
    """
    from triptych_cli import render
    from triptych_cli.status.collect import collect

    node = collect(context)
    if context.json:
        from triptych_cli.status.document import document

        render.as_json(document(node))
    else:
        from triptych_cli.status.view import page

        render.console().print(page(node))
    return 0 if node.healthy else 1
