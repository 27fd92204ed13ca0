"""`./dev bench NAME`: the benchmarks in tests/bench, each a program of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import click

from triptych_dev.node.shell import CHECKOUT_ROOT

BENCHES = CHECKOUT_ROOT / "tests/bench"


def names() -> list[str]:
    """The benchmarks there are: tests/bench/bench_NAME.py."""
    return sorted(path.stem.removeprefix("bench_") for path in BENCHES.glob("bench_*.py"))


class _Name(click.ParamType[Path]):
    name = "NAME"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        path = BENCHES / f"bench_{value}.py"
        if not path.exists():
            self.fail(f"no benchmark {value!r}; there are: {', '.join(names()) or 'none'}", param, ctx)
        return path


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("program", type=_Name())
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(program: Path, arguments: tuple[str, ...]) -> int:
    """Run a benchmark; what follows its name goes to it.

    Its last line is one JSON object: {"bench": NAME, "host": ..., "results": ..., "ratios": ...}.
    """
    child = subprocess.Popen([sys.executable, str(program), *arguments], cwd=CHECKOUT_ROOT)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the benchmark too, which cleans up
    signal.signal(signal.SIGTERM, lambda *_: child.terminate())
    return child.wait()
