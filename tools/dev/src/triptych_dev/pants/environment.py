"""Getting a Pants to run.

A current release comes through its own launcher, which fetches it from GitHub. Where there is no launcher,
the newest release that the package index has (2.17.1, for Python 3.7 to 3.9) is installed into .dev/pants,
with the PEX program that it would otherwise fetch from GitHub built from the package index too.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from triptych_dev.node.errors import NotPossible
from triptych_dev.node.shell import CHECKOUT_ROOT, run

RELEASE = "2.17.1"
PEX = "2.1.137"
"""The PEX that Pants 2.17.1 asks for."""
HOME = CHECKOUT_ROOT / ".dev/pants"
OVERLAY = HOME / "pants.offline.toml"
_PYTHONS = ("python3.9", "python3.8", "python3.7")

_OVERLAY = """\
# Made by ./dev pants: what Pants {release} calls otherwise than the release in pants.toml.
[GLOBAL]
pants_version = "{release}"
backend_packages = [
    "pants.backend.python",
    "pants.backend.python.typecheck.mypy",
    "pants.backend.experimental.python.lint.ruff",
]
pants_workdir = "{home}/workdir"
local_store_dir = "{home}/store"
named_caches_dir = "{home}/caches"
pantsd = true
pants_subprocessdir = "{home}/pids"

[pex-cli]
version = "v{pex}"
url_template = "file://{program}"
known_versions = ["v{pex}|linux_x86_64|{digest}|{size}", "v{pex}|linux_arm64|{digest}|{size}"]

[ruff]
install_from_resolve = "python-default"
requirements = ["//3rdparty/python#ruff"]
args = ["check", "--force-exclude"]

[python-bootstrap]
search_path = ["<PATH>", "<PYENV>", "/usr/bin"]
"""


@dataclass(frozen=True, slots=True)
class Pants:
    """A Pants to call.

    :param overlay: the configuration to put over pants.toml; None for a current release.
    """

    program: Path
    overlay: Path | None


def find() -> Pants:
    """The launcher on the PATH, else the installed old release, which is made first if need be.

    :raises NotPossible: there is no launcher and no Python that the old release runs on.
    :raises CommandFailed: an installation failed.
    """
    launcher = shutil.which("pants")
    if launcher is not None:
        return Pants(Path(launcher), None)
    program = HOME / "venv/bin/pants"
    if not program.exists():
        _install(program.parent)
    pex = HOME / "pex"
    if not pex.exists():
        run(
            [HOME / "venv/bin/pex", f"pex=={PEX}", "-c", "pex", "--venv=prepend", "-o", pex],
            step="build the PEX program",
            cwd=HOME,
        )
    _write_overlay(pex)
    return Pants(program, OVERLAY)


def _install(binaries: Path) -> None:
    python = _old_python()
    HOME.mkdir(parents=True, exist_ok=True)
    run([python, "-m", "venv", "--clear", binaries.parent], step="make an environment for Pants")
    wanted = [f"pantsbuild.pants=={RELEASE}", f"pex=={PEX}", "setuptools<81"]
    run([binaries / "pip", "install", "-q", *wanted], step=f"install Pants {RELEASE}")


def _old_python() -> Path:
    """A Python that runs, and not pyenv's stand-in for one that is not chosen."""
    on_path = [Path(found) for name in _PYTHONS if (found := shutil.which(name)) is not None]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for python in (*on_path, *sorted(pyenv.glob("versions/3.[789].*/bin/python"), reverse=True)):
        if run([python, "-c", "print(6 * 7)"], step=python.name, check=False).strip() == "42":
            return python
    raise NotPossible(
        f"Pants {RELEASE} needs Python 3.7 to 3.9, and the launcher of a current Pants is not on the PATH",
        hint="https://www.pantsbuild.org/stable/docs/getting-started/installing-pants",
    )


def _write_overlay(pex: Path) -> None:
    content = pex.read_bytes()
    text = _OVERLAY.format(
        release=RELEASE,
        home=HOME,
        pex=PEX,
        program=pex,
        digest=hashlib.sha256(content).hexdigest(),
        size=len(content),
    )
    if not OVERLAY.exists() or OVERLAY.read_text() != text:
        OVERLAY.write_text(text)
