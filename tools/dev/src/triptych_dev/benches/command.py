"""`./dev bench NAME`: the benchmarks in tests/bench, each a program of its own."""

from __future__ import annotations

import signal
import subprocess
import sys

import click

from triptych_dev.node.shell import CHECKOUT_ROOT

BENCHES = CHECKOUT_ROOT / "tests/bench"


def names() -> list[str]:
    """The benchmarks there are: tests/bench/bench_NAME.py."""
    return sorted(path.stem.removeprefix("bench_") for path in BENCHES.glob("bench_*.py"))


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("name", type=click.Choice(names()))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(name: str, arguments: tuple[str, ...]) -> int:
    """Run a benchmark; what follows its name goes to it (./dev bench pods --help).

    Its last line is one JSON object: {"bench": NAME, "host": ..., "results": ..., "ratios": ...}.
    """
    program = str(BENCHES / f"bench_{name}.py")
    child = subprocess.Popen([sys.executable, program, *arguments], cwd=CHECKOUT_ROOT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the benchmark too, which cleans up
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child.wait()
