"""One executable file a program (https://docs.pex-tool.org): it needs nothing but Python 3 on the node."""

from __future__ import annotations

import tempfile
from pathlib import Path

from triptych_dev.node.errors import NotPossible
from triptych_dev.node.python_tree import Interpreter, export_requirements
from triptych_dev.node.shell import CHECKOUT_ROOT, run, uv

PEX = "pex==2.105.2"
PROGRAMS = {
    "triptych-image": "triptych-image",
    "triptych-runtime": "triptych-runtime",
    "triptych-streaming": "triptych-streaming",
    "triptych": "triptych-cli",
}
"""Each executable and the distribution that brings it."""


def build(dist: Path, interpreters: list[Interpreter]) -> list[Path]:
    """Make an executable of every program from dist/wheels.

    Native code is for one minor version of Python; with several interpreters a file holds it for each.

    :raises NotPossible: there are no wheels.
    :raises CommandFailed: a build failed.
    """
    wheels = dist / "wheels"
    if not list(wheels.glob("triptych_*.whl")):
        raise NotPossible(f"no wheels in {wheels}", hint="./dev package wheels")
    return [_one(dist, wheels, program, name, interpreters) for program, name in PROGRAMS.items()]


def _one(dist: Path, wheels: Path, program: str, distribution: str, interpreters: list[Interpreter]) -> Path:
    target = dist / f"{program}.pex"
    pythons = [part for interpreter in interpreters for part in ("--python", str(interpreter.path))]
    with tempfile.TemporaryDirectory(prefix="triptych-pex-") as scratch:
        requirements = export_requirements(Path(scratch) / "requirements.txt", (distribution,))
        constraints = Path(scratch) / "constraints.txt"
        constraints.write_text(_without_hashes(requirements.read_text()))
        command: list[str | Path] = [uv(), "tool", "run", "--from", PEX, "pex", "--constraints", constraints]
        run(
            [
                *command,
                *("--find-links", wheels, "--script", program, "--output-file", target),
                *("--venv", "prepend", "--runtime-pex-root", "/var/cache/triptych/pex"),
                *pythons,
                distribution,
            ],
            step=f"build {target.name}",
            cwd=CHECKOUT_ROOT,
        )
    return target


def _without_hashes(requirements: str) -> str:
    """The pinned versions alone: our own wheels have no hash in the lock, and a mixture is refused."""
    lines = (line.split("\\")[0].strip() for line in requirements.splitlines())
    return "\n".join(line for line in lines if line and not line.startswith(("#", "--"))) + "\n"
