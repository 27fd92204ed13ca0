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


def build(dist: Path, interpreter: Interpreter) -> list[Path]:
    """Make an executable of every program from dist/wheels.

    uv brings what is locked into an environment, and PEX packs from there: so proxies, certificates and
    package indexes are those that uv knows, and every file has the hash that uv.lock says. Native code is
    for one minor version of Python.

    :raises NotPossible: there are no wheels.
    :raises CommandFailed: a build failed.
    """
    wheels = sorted((dist / "wheels").glob("triptych_*.whl"))
    if not wheels:
        raise NotPossible(f"no wheels in {dist / 'wheels'}", hint="./dev package wheels")
    with tempfile.TemporaryDirectory(prefix="triptych-pex-") as scratch:
        environment = _environment(Path(scratch), wheels, interpreter)
        return [_one(dist, environment, program, name) for program, name in PROGRAMS.items()]


def _environment(scratch: Path, wheels: list[Path], interpreter: Interpreter) -> Path:
    environment = scratch / "venv"
    run([uv(), "venv", "-q", "--python", interpreter.path, environment], step="make an environment")
    python = environment / "bin/python"
    install: list[str | Path] = [uv(), "pip", "install", "-q", "--python", python]
    requirements = export_requirements(scratch / "requirements.txt")
    run([*install, "--require-hashes", "-r", requirements], step="install dependencies")
    run([*install, "--no-deps", *wheels], step="install the wheels")
    return environment


def _one(dist: Path, environment: Path, program: str, distribution: str) -> Path:
    target = dist / f"{program}.pex"
    command: list[str | Path] = [uv(), "tool", "run", "--from", PEX, "pex"]
    # Some of OpenTelemetry has pre-releases only; what is taken says the lock.
    source = ("--venv-repository", environment, "--pre", "--python", environment / "bin/python")
    start = ("--script", program, "--venv", "prepend", "--runtime-pex-root", "/var/cache/triptych/pex")
    run(
        [*command, *source, *start, "--output-file", target, distribution],
        step=f"build {target.name}",
        cwd=CHECKOUT_ROOT,
    )
    return target
