"""Trying what was built: each program says its version, each daemon serves its socket and ends when told."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from triptych_dev.node.errors import CommandFailed
from triptych_dev.node.places import COMMANDS, DAEMONS, DEBIAN, inside
from triptych_dev.node.python_tree import Interpreter
from triptych_dev.node.shell import run, uv
from triptych_dev.packaging.maintainer import CONFLIST
from triptych_dev.stack import Stack, StackError, free_port

DPKG_STATE = Path("var/lib/dpkg")
Say = Callable[[str], None]


def check_wheels(dist: Path, interpreter: Interpreter, say: Say) -> None:
    """Install the wheels into a fresh environment and try their commands.

    :raises CommandFailed: something does not work.
    """
    with tempfile.TemporaryDirectory(prefix="triptych-check-") as scratch:
        environment = Path(scratch) / "venv"
        run([uv(), "venv", "-q", "--python", interpreter.path, environment], step="make an environment")
        python = environment / "bin/python"
        wheels = sorted((dist / "wheels").glob("triptych_*.whl"))
        run([uv(), "pip", "install", "-q", "--python", python, *wheels], step="install the wheels")
        try_programs({name: environment / "bin" / name for name in COMMANDS}, say)


def check_pex(files: list[Path], say: Say) -> None:
    """Try the executables.

    :raises CommandFailed: something does not work.
    """
    try_programs({file.stem: file for file in files}, say)


def check_deb(package: Path, say: Say) -> None:
    """Have dpkg install the package into a directory, try its commands there, and purge it again.

    :raises CommandFailed: something does not work, or is left.
    """
    with tempfile.TemporaryDirectory(prefix="triptych-check-") as scratch:
        root = Path(scratch)
        dpkg(root, "--install", package)
        conflist = inside(root, CONFLIST)
        if not conflist.is_file():
            raise CommandFailed(f"{package.name} gives a node without a pod network none")
        prefix = inside(root, DEBIAN.prefix)
        for script in (prefix / "bin").iterdir():
            if script.name.startswith("triptych"):
                script.write_text(script.read_text().replace(f"#!{DEBIAN.prefix}", f"#!{prefix}", 1))
        try_programs({name: prefix / "bin" / name for name in COMMANDS}, say)
        dpkg(root, "--purge", "triptych")
        left = [path for path in root.rglob("*triptych*") if not path.is_relative_to(root / DPKG_STATE)]
        if left:
            raise CommandFailed(f"{package.name} leaves {', '.join(map(str, left))}")
    say("the package is installed and purged without a trace")


def dpkg(root: Path, *arguments: str | Path) -> None:
    """Run dpkg on a node that is a directory; its scripts run here and are told the directory.

    :raises CommandFailed: it or a script failed.
    """
    state = root / DPKG_STATE
    for directory in ("info", "updates"):
        (state / directory).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    # dpkg wants ldconfig and start-stop-daemon to be found.
    env = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "DEBIAN_FRONTEND": "noninteractive"}
    forced = ("--force-script-chrootless", "--force-depends", "--force-confdef")
    argv = ["dpkg", f"--root={root}", f"--log={state}/log", *forced, *arguments]
    run(argv, step="install the package", env=env)


def try_programs(programs: Mapping[str, Path], say: Say) -> None:
    """Ask each for its version; then run the three daemons together in a place of their own and end them."""
    with tempfile.TemporaryDirectory(prefix="triptych-check-") as scratch:
        # Where a PEX unpacks itself.
        env = {"PEX_ROOT": f"{scratch}/pex"}
        _versions(programs, env, say)
        _serve(programs, Path(scratch) / "root", env)
    say("the three daemons serve their sockets, and end when told")


def _versions(programs: Mapping[str, Path], env: Mapping[str, str], say: Say) -> None:
    for name, program in programs.items():
        said = run([program, "--version"], step=f"{program.name} --version", env=env).strip()
        if not said.startswith(f"{name} "):
            raise CommandFailed(f"{program} --version says {said!r}")
        say(f"{program.name}: {said}")


def _serve(programs: Mapping[str, Path], root: Path, env: Mapping[str, str]) -> None:
    stack = Stack(
        root,
        name="triptych-pkg",
        subnet="10.97.0.0/16",
        overrides={"streaming": {"http": {"listen": f"127.0.0.1:{free_port()}"}}},
        programs={daemon: [str(programs[f"triptych-{daemon}"])] for daemon in DAEMONS},
    )
    try:
        stack.write_configuration()
        stack.start(env=env)
        _status(programs["triptych"], stack, env)
        stack.stop()
    except StackError as error:
        raise CommandFailed(str(error)) from None
    finally:
        stack.clean()
        shutil.rmtree(stack.state, ignore_errors=True)


def _status(program: Path, stack: Stack, env: Mapping[str, str]) -> None:
    """The command's own look at the daemons; pods need no network here, so only the daemons must serve."""
    sockets = [f"--{daemon}-socket={stack.socket(daemon)}" for daemon in DAEMONS]
    said = run([program, *sockets, "status"], step=f"{program.name} status", env=env, check=False)
    if said.count(" serving ") != len(DAEMONS):
        raise CommandFailed(f"{program.name} status:\n{said}")
