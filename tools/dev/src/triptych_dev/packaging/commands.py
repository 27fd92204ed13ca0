"""The command `package` of ./dev."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from triptych_dev.node.shell import CHECKOUT_ROOT

_KINDS = ("wheels", "pex", "deb")


@click.command(short_help="Build wheels, executables and a Debian package, and try them.")
@click.argument("kinds", nargs=-1, type=click.Choice(_KINDS))
@click.option(
    "--dist",
    type=click.Path(file_okay=False, path_type=Path),
    default=CHECKOUT_ROOT / "dist",
    help="Where to (default: dist/ of the checkout).",
)
@click.option("--wheelhouse", is_flag=True, help="Also the wheels of all dependencies, to install offline.")
@click.option("--no-check", is_flag=True, help="Do not try what was built.")
def package(kinds: tuple[str, ...], dist: Path, wheelhouse: bool, no_check: bool) -> None:
    """Build into dist/: a wheel of every distribution, one executable file (PEX) a program, and a Debian
    package; all three, or the KINDS named.

    Each is tried after: every program tells its version, the three daemons serve their sockets and end when
    told.
    PEX files and the Debian package hold native code for the Python of this system.
    """
    from triptych_dev.node.python_tree import find_interpreter
    from triptych_dev.packaging import check, deb, pex, wheels

    dist = dist.resolve()
    dist.mkdir(parents=True, exist_ok=True)
    wanted = kinds or _KINDS
    interpreter = find_interpreter(Path("/"))
    made: list[Path] = []
    if "wheels" in wanted or not list((dist / "wheels").glob("triptych_*.whl")):
        made += wheels.build(dist)
        _tell(f"{len(made)} wheels in {dist / 'wheels'}")
        if wheelhouse:
            _tell(f"{len(wheels.add_dependencies(dist))} wheels of dependencies")
        if not no_check:
            check.check_wheels(dist, interpreter, _tell)
    if "pex" in wanted:
        files = pex.build(dist, interpreter)
        made += files
        _tell(f"{len(files)} executables in {dist}")
        if not no_check:
            check.check_pex(files, _tell)
    if "deb" in wanted:
        made.append(deb.build(dist, interpreter))
        _tell(f"{made[-1]}")
        if not no_check:
            check.check_deb(made[-1], _tell)
    _sums(dist)


def _tell(line: str) -> None:
    click.echo(f"  {line}")


def _sums(dist: Path) -> None:
    """dist/SHA256SUMS over everything, as sha256sum -c reads it."""
    lines = []
    for path in sorted(dist.rglob("*")):
        if path.is_file() and path.name != "SHA256SUMS":
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            lines.append(f"{digest}  {path.relative_to(dist)}\n")
    (dist / "SHA256SUMS").write_text("".join(lines))
