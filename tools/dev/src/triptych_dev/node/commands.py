"""The commands `install` and `uninstall` of ./dev."""

from __future__ import annotations

from pathlib import Path

import click

_DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)


def register(group: click.Group) -> None:
    """Add the commands to a group."""
    group.add_command(install)
    group.add_command(uninstall)


@click.command(short_help="Put a node together: environment, units, configuration.")
@click.option(
    "--root", type=_DIRECTORY, default=Path("/"), help="Root directory of the node (default: this machine)."
)
@click.option(
    "--wheels",
    type=_DIRECTORY,
    help="Install these wheels (./dev package wheels) instead of building the checkout.",
)
@click.option(
    "--offline", is_flag=True, help="Use no package index; --wheels has the dependencies too (--wheelhouse)."
)
@click.option("--no-start", is_flag=True, help="Enable the units, and do not start them.")
@click.option("--kubelet", is_flag=True, help="Also place the kubelet's drop-in with the two endpoints.")
def install(root: Path, wheels: Path | None, offline: bool, no_start: bool, kubelet: bool) -> None:
    """Put a node together, or upgrade it.

    Makes the environment /opt/triptych with the system's Python, links its commands into /usr/local/bin,
    places units, /etc/triptych, /etc/crictl.yaml and, where there is none, the default pod network; then
    enables and starts the three daemons. Edited configuration files are kept. Running it again upgrades:
    containers go on while the daemons restart.
    """
    from triptych_dev.node import InstallOptions
    from triptych_dev.node import install as run

    if offline and wheels is None:
        raise click.UsageError("--offline needs --wheels")
    done = run(
        InstallOptions(root=root, wheels=wheels, offline=offline, start=not no_start, kubelet=kubelet),
        lambda step: click.echo(f"  {step}"),
    )
    click.echo(f"triptych {done.version} is installed" + (" and runs" if done.started else ""))
    for path in done.kept:
        click.echo(f"kept {path}, which was edited; the new one is {path}.new")
    if done.missing:
        click.echo(f"still needed: apt-get install {' '.join(done.missing)}")
    if done.started:
        click.echo("next: triptych status; triptych doctor")


@click.command(short_help="Take a node apart; nothing stays.")
@click.option(
    "--root", type=_DIRECTORY, default=Path("/"), help="Root directory of the node (default: this machine)."
)
@click.option("--keep-pods", is_flag=True, help="Do not stop and remove pods first.")
@click.option("--keep-config", is_flag=True, help="Leave the configuration files.")
@click.option("--keep-data", is_flag=True, help="Leave images and state.")
def uninstall(root: Path, keep_pods: bool, keep_config: bool, keep_data: bool) -> None:
    """Remove every pod, stop the daemons, and remove all that install placed and the daemons made.

    Says what is left, and ends with status 1 when that is anything.
    """
    from triptych_dev.node import UninstallOptions
    from triptych_dev.node import uninstall as run

    options = UninstallOptions(root=root, keep_pods=keep_pods, keep_config=keep_config, keep_data=keep_data)
    left = run(options, lambda step: click.echo(f"  {step}"))
    for line in left:
        click.echo(f"left: {line}")
    if left:
        raise SystemExit(1)
    click.echo(
        "triptych is uninstalled; nothing is left" if root == Path("/") else "triptych is uninstalled"
    )
