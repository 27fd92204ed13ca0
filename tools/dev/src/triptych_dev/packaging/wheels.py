"""A wheel of every distribution, and on request of everything they need."""

from __future__ import annotations

import shutil
from pathlib import Path

from triptych_dev.node.python_tree import build_wheels, export_requirements, find_interpreter
from triptych_dev.node.shell import CHECKOUT_ROOT, run, uv


def build(dist: Path) -> list[Path]:
    """Wheels of the whole workspace in dist/wheels; older ones go.

    :raises CommandFailed: a build failed.
    """
    target = dist / "wheels"
    shutil.rmtree(target, ignore_errors=True)
    build_wheels(target)
    return sorted(target.glob("*.whl"))


def add_dependencies(dist: Path) -> list[Path]:
    """Download the locked dependencies for the system's Python beside our wheels.

    With them `./dev install --wheels dist/wheels --offline` needs no package index.
    """
    target = dist / "wheels"
    interpreter = find_interpreter(Path("/"))
    requirements = export_requirements(dist / "requirements.txt")
    version = ".".join(map(str, interpreter.version))
    pip = [
        uv(),
        "run",
        "--no-project",
        "--with",
        "pip",
        "--python",
        str(interpreter.path),
        "python",
        "-m",
        "pip",
    ]
    choice = ["--only-binary", ":all:", "--python-version", version, "--require-hashes"]
    run(
        [*pip, "download", "-q", "-d", target, *choice, "-r", requirements],
        step="download dependencies",
        cwd=CHECKOUT_ROOT,
    )
    requirements.unlink()
    return sorted(wheel for wheel in target.glob("*.whl") if not wheel.name.startswith("triptych_"))
