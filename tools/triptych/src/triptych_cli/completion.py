"""`triptych completion`: the shell code that completes commands, options and values."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print completion code for a shell.

    \b
    bash: triptych completion bash > /usr/local/share/bash-completion/completions/triptych
    zsh:  triptych completion zsh > "${fpath[1]}/_triptych"
    fish: triptych completion fish > ~/.config/fish/completions/triptych.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    root = ctx.find_root().command
    click.echo(kind(root, {}, "triptych", "_TRIPTYCH_COMPLETE").source())
