"""`./dev gen`: stubs from proto/, by protoc of grpcio-tools and mypy-protobuf; the configuration page."""

from __future__ import annotations

import filecmp
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import click

from triptych_dev.errors import StepFailed
from triptych_dev.node.shell import CHECKOUT_ROOT, run

PROTO = CHECKOUT_ROOT / "proto"
STUBS = CHECKOUT_ROOT / "libs/api/src"
_OVER_TTRPC = ("nri", "ttrpc")
"""Folders of protos that never go over gRPC: no stubs of their services."""
_GENERATED = ("*_pb2.py", "*_pb2.pyi", "*_pb2_grpc.py", "*_pb2_grpc.pyi")


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; fail when the checked-in stubs are stale.")
def gen(check: bool) -> None:
    """Generate libs/api from proto/ (messages, gRPC stubs, types of both) and docs/configuration.md."""
    from triptych_dev import configuration

    if not check:
        written = generate(STUBS)
        click.echo(f"{written} files in {STUBS.relative_to(CHECKOUT_ROOT)}")
        configuration.PAGE.write_text(configuration.render())
        click.echo(f"{configuration.PAGE.relative_to(CHECKOUT_ROOT)}")
        return
    found = stale()
    if found:
        raise StepFailed("stale: " + ", ".join(found), hint="run ./dev gen and commit the result")
    click.echo("all is fresh")


def generate(to: Path) -> int:
    """Write all stubs below `to`, and remove those whose proto is gone; gives their number.

    :raises CommandFailed: protoc refused a proto; the message is protoc's.
    """
    with tempfile.TemporaryDirectory(prefix="triptych-gen-") as scratch:
        fresh = Path(scratch)
        protos = sorted(path.relative_to(PROTO) for path in PROTO.rglob("*.proto"))
        _protoc(fresh, ("python", "mypy"), protos)
        services = [proto for proto in protos if proto.parts[0] not in _OVER_TTRPC]
        _protoc(fresh, ("grpc_python", "mypy_grpc"), services)
        made = set(_stubs(fresh))
        for name in _stubs(to):
            if name not in made:
                (to / name).unlink()
        for name in made:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            if not (to / name).exists() or not filecmp.cmp(fresh / name, to / name, shallow=False):
                shutil.copyfile(fresh / name, to / name)
    return len(made)


def _protoc(to: Path, kinds: Iterable[str], protos: Iterable[Path]) -> None:
    plugins = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"}
    outputs = [f"--{kind}_out={to}" for kind in kinds]
    argv = [sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", *outputs, *map(str, protos)]
    run(argv, step="generate stubs", env=plugins)


def stale() -> list[str]:
    """What is not as it would be generated: stubs, as paths below libs/api/src, and the page."""
    from triptych_dev import configuration

    with tempfile.TemporaryDirectory(prefix="triptych-gen-") as scratch:
        fresh = Path(scratch)
        generate(fresh)
        made, present = set(_stubs(fresh)), set(_stubs(STUBS))
        differ = {
            name for name in made & present if not filecmp.cmp(fresh / name, STUBS / name, shallow=False)
        }
    found = sorted(str(name) for name in (made ^ present) | differ)
    page = configuration.PAGE
    if not page.exists() or page.read_text() != configuration.render():
        found.append(str(page.relative_to(CHECKOUT_ROOT)))
    return found


def _stubs(root: Path) -> Iterator[Path]:
    for pattern in _GENERATED:
        for path in root.rglob(pattern):
            yield path.relative_to(root)
