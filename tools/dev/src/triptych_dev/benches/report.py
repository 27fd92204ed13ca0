"""What every benchmark does with its figures: quantiles, the host, the last line for machines."""

from __future__ import annotations

import json
import os
import platform
import signal
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
from rich.console import Console
from triptych_errors import TriptychError

from triptych_dev.stack import StackError

_WIDTH = 120


def quantile(values: Sequence[float], share: float) -> float:
    """A quantile of few values, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]


def middle(values: Sequence[float]) -> dict[str, float]:
    """p50 and p90 of timings, rounded to hundredths, and how many there were."""
    p50, p90 = round(statistics.median(values), 2), round(quantile(values, 0.9), 2)
    return {"p50": p50, "p90": p90, "n": len(values)}


def host() -> dict[str, Any]:
    """What the figures depend on: processor, memory, kernel, cgroup version, load before the run."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    unified = Path("/sys/fs/cgroup/cgroup.controllers").exists()
    return {
        "cpu": cpu,
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": platform.release(),
        "cgroup": 2 if unified else 1,
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
    }


def console() -> Console:
    """Where tables go: never narrower than they are, also into a pipe."""
    found = Console()
    return found if found.width >= _WIDTH else Console(width=_WIDTH)


def finish(bench: str, machine: Mapping[str, Any], results: Any, ratios: Any) -> None:
    """Print the last line: one JSON object."""
    click.echo(json.dumps({"bench": bench, "host": machine, "results": results, "ratios": ratios}))


def run(command: click.Command) -> NoReturn:
    """Run a benchmark as a program of its own: 0, 1 when something failed, 2 for wrong arguments."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))  # by way of every cleanup
    try:
        command.main(standalone_mode=False)
    except (TriptychError, StackError) as error:
        click.echo(f"{command.name}: {error}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    sys.exit(0)
