"""The Python side of an installation: one environment with the three daemons and the command."""

from __future__ import annotations

import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from triptych_dev.node.errors import NotPossible
from triptych_dev.node.places import COMMANDS, DAEMONS, DISTRIBUTIONS, inside
from triptych_dev.node.shell import CHECKOUT_ROOT, run, uv

_OLDEST = (3, 11)
_LAUNCHER = """\
#!{prefix}/bin/python3 {options}
import sys

from {module} import main

sys.exit(main())
"""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """The node's own Python.

    :param path: as the node sees it.
    """

    path: Path
    version: tuple[int, int]

    @property
    def name(self) -> str:
        return f"python{self.version[0]}.{self.version[1]}"


def find_interpreter(root: Path) -> Interpreter:
    """The system's Python below `root`.

    :raises NotPossible: there is none, or it is too old.
    """
    names = sorted(inside(root, Path("/usr/bin")).glob("python3.*"))
    versions = [int(name.name.removeprefix("python3.")) for name in names if name.name[8:].isdigit()]
    if not versions:
        raise NotPossible(f"no Python in {root / 'usr/bin'}", hint="apt-get install python3")
    version = (3, max(versions))
    if version < _OLDEST:
        raise NotPossible(f"Python 3.{version[1]} is too old", hint="triptych needs 3.11 or later")
    return Interpreter(Path(f"/usr/bin/python3.{version[1]}"), version)


def build(root: Path, prefix: Path, interpreter: Interpreter, wheels: Path | None, *, offline: bool) -> None:
    """Make the environment at `prefix` below `root`; an older one is replaced at the end.

    :param wheels: a directory of built wheels; None builds them from the checkout.
    :param offline: take dependencies from `wheels` too, and nothing from a package index.
    :raises CommandFailed: a build or download failed; the older environment is untouched.
    """
    final = inside(root, prefix)
    fresh = final.with_name(f".{final.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        site = fresh / "lib" / interpreter.name / "site-packages"
        site.mkdir(parents=True)
        with tempfile.TemporaryDirectory(prefix="triptych-wheels-") as scratch:
            found = wheels if wheels is not None else build_wheels(Path(scratch) / "wheels")
            _install(site, interpreter, found, Path(scratch), offline=offline)
        _interpreter_links(fresh, interpreter)
        _launchers(fresh, prefix)
        _compile(site, prefix, interpreter)
        _swap(fresh, final)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def build_wheels(to: Path) -> Path:
    """Build a wheel of every distribution of the workspace."""
    to.mkdir(parents=True, exist_ok=True)
    run([uv(), "build", "--wheel", "--all-packages", "-o", to], step="build wheels", cwd=CHECKOUT_ROOT)
    return to


def export_requirements(to: Path, distributions: tuple[str, ...] = DISTRIBUTIONS) -> Path:
    """Write the locked dependencies, with hashes, of some distributions of the workspace."""
    packages = [part for name in distributions for part in ("--package", name)]
    run(
        [uv(), "export", "--frozen", "--no-dev", "--no-emit-workspace", *packages, "-q", "-o", to],
        step="read uv.lock",
        cwd=CHECKOUT_ROOT,
    )
    return to


def _install(site: Path, interpreter: Interpreter, wheels: Path, scratch: Path, *, offline: bool) -> None:
    ours = sorted(wheels.glob("triptych_*.whl"))
    if not ours:
        raise NotPossible(f"no triptych wheels in {wheels}", hint="./dev package wheels")
    ours = [wheel for wheel in ours if not wheel.name.startswith("triptych_dev-")]
    version = ".".join(map(str, interpreter.version))
    base: list[str | Path] = [uv(), "pip", "install", "-q", "--target", site, "--python-version", version]
    # uv's own "linux" stands for glibc 2.28, for which not every wheel is built; Debian 12 has 2.36.
    base += [
        "--python-platform",
        f"{platform.machine()}-manylinux_2_34",
        "--only-binary",
        ":all:",
        "--link-mode",
        "copy",
    ]
    if offline:
        base += ["--no-index", "--find-links", wheels]
    requirements = export_requirements(scratch / "requirements.txt")
    run([*base, "--require-hashes", "-r", requirements], step="install dependencies")
    run([*base, "--no-deps", *ours], step="install triptych")


def _interpreter_links(fresh: Path, interpreter: Interpreter) -> None:
    """What makes a directory a virtual environment (PEP 405), without running anything of the node."""
    (fresh / "bin").mkdir(exist_ok=True)
    for name in ("python3", interpreter.name):
        (fresh / "bin" / name).symlink_to(interpreter.path)
    version = ".".join(map(str, interpreter.version))
    (fresh / "pyvenv.cfg").write_text(
        f"home = {interpreter.path.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
    )


def _launchers(fresh: Path, prefix: Path) -> None:
    for command, module in COMMANDS.items():
        script = fresh / "bin" / command
        script.write_text(_LAUNCHER.format(prefix=prefix, module=module, options=_options(command)))
        script.chmod(0o755)


def _options(command: str) -> str:
    """How Python runs a command, in one argument, as a launcher's first line takes no more.

    Daemons run without docstrings and columns of lines, which are a megabyte of each one's memory; the
    docstrings of the command line are its help.
    """
    return "-IOOXno_debug_ranges" if command.removeprefix("triptych-") in DAEMONS else "-I"


def _compile(site: Path, prefix: Path, interpreter: Interpreter) -> None:
    """Write bytecode, so that daemons start fast and never write below the prefix."""
    shutil.rmtree(site / "bin", ignore_errors=True)
    program = shutil.which(interpreter.name, path="/usr/bin:/usr/local/bin") or shutil.which(
        interpreter.name
    )
    if program is None:
        return
    shown = prefix / "lib" / interpreter.name / "site-packages"
    compile_all = [program, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash"]
    compile_all += ["-o", "0", "-o", "2"]  # as the launchers run it
    run([*compile_all, "-s", site, "-p", shown, site], step="compile", check=False)


def _swap(fresh: Path, final: Path) -> None:
    """Put the new environment in the place of the old one; running daemons keep their open files."""
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    fresh.rename(final)
    shutil.rmtree(old, ignore_errors=True)
