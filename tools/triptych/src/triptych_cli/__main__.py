"""The `triptych` command."""

from __future__ import annotations

from typing import NoReturn

import click

from triptych_cli import __version__
from triptych_cli.context import Context, DaemonName, Output
from triptych_cli.ending import run
from triptych_cli.lazy import Lazy, LazyGroup

COMMANDS = {
    "status": Lazy("triptych_cli.status.command:status", "One look at the three daemons and what they do."),
    "top": Lazy("triptych_cli.top.command:top", "The same, live: daemons, containers, pulls, sessions."),
    "doctor": Lazy("triptych_cli.doctor.command:doctor", "Check this host; each finding with its remedy."),
    "image": Lazy(
        "triptych_cli.image.group:image", "Images: ls, pull, push, load, save, rm, prune, verify."
    ),
    "config": Lazy("triptych_cli.config.group:config", "Configuration: show, check, reference."),
    "trace": Lazy("triptych_cli.trace.command:trace", "Run a request and draw where its time went."),
    "support-bundle": Lazy(
        "triptych_cli.bundle.command:support_bundle", "Collect what a bug report needs, without secrets."
    ),
    "completion": Lazy(
        "triptych_cli.completion:completion", "Print shell completion for bash, zsh or fish."
    ),
}
"""Every command: where it is and its line in the listing."""


def _version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"triptych {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "TRIPTYCH"},
)
@click.option(
    "--runtime-socket",
    default=DaemonName.RUNTIME.default_socket,
    show_default=True,
    metavar="PATH",
    help="Socket of triptych-runtime.",
)
@click.option(
    "--image-socket",
    default=DaemonName.IMAGE.default_socket,
    show_default=True,
    metavar="PATH",
    help="Socket of triptych-image.",
)
@click.option(
    "--streaming-socket",
    default=DaemonName.STREAMING.default_socket,
    show_default=True,
    metavar="PATH",
    help="Socket of triptych-streaming.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="Longest wait for what a daemon answers at once; pulls and the like have none.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice([output.value for output in Output]),
    default=Output.TEXT.value,
    show_default=True,
    help="Form of the results.",
)
@click.option(
    "--version",
    is_flag=True,
    callback=_version,
    expose_value=False,
    is_eager=True,
    help="Show the version and exit.",
)
@click.pass_context
def cli(
    ctx: click.Context,
    runtime_socket: str,
    image_socket: str,
    streaming_socket: str,
    timeout: float,
    output: str,
) -> None:
    """Look after a triptych node: triptych-image, triptych-runtime and triptych-streaming.

    Every option can come from the environment, such as TRIPTYCH_TIMEOUT. For pods and containers use crictl.
    """
    sockets = {
        DaemonName.RUNTIME: runtime_socket,
        DaemonName.IMAGE: image_socket,
        DaemonName.STREAMING: streaming_socket,
    }
    ctx.obj = Context(
        {name: path.removeprefix("unix://") for name, path in sockets.items()}, timeout, Output(output)
    )


def main() -> NoReturn:
    """Run the command line."""
    run(cli, "triptych")


if __name__ == "__main__":
    main()
