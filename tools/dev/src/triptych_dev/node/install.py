"""./dev install: the steps, in order, each repeatable."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from triptych_dev.node import files, manager, manifest, python_tree
from triptych_dev.node.errors import NotPossible
from triptych_dev.node.places import CHECKOUT, Places, inside

VERSION_SOURCE = "triptych-runtime"
NEEDED = {
    ("conmon",): "conmon",
    ("crun", "runc"): "crun",
    ("iptables",): "iptables",
    ("nft",): "nftables",
    ("mount",): "mount",
}
"""Programs, one of each group, that pods cannot do without, and the Debian packages that have them."""


@dataclass(frozen=True, slots=True)
class InstallOptions:
    """What to install where.

    :param root: the node's root directory; "/" for this machine.
    :param wheels: built wheels to install; None builds from the checkout.
    :param offline: use no package index; `wheels` holds the dependencies too.
    :param start: start the daemons when systemd runs here.
    :param kubelet: place the kubelet's drop-in.
    """

    root: Path = Path("/")
    places: Places = CHECKOUT
    wheels: Path | None = None
    offline: bool = False
    start: bool = True
    kubelet: bool = False


@dataclass(frozen=True, slots=True)
class Installed:
    """What was done.

    :param kept: configuration files that an operator had edited; the new ones lie beside them as NAME.new.
    :param missing: Debian packages that the node lacks.
    """

    version: str
    started: bool
    kept: tuple[Path, ...]
    missing: tuple[str, ...]


def install(options: InstallOptions, say: Callable[[str], None]) -> Installed:
    """Install or upgrade a node.

    :param say: told each step before it is done.
    :raises NotPossible: not root, no usable Python, or a Debian package of triptych is installed.
    :raises CommandFailed: a build, download or systemd step failed.
    """
    places, root = options.places, options.root.resolve()
    _check(root, places)
    missing = _missing(root)
    if missing:
        say(f"needed beside this: apt-get install {' '.join(missing)}")
    before = manifest.load(root, places.manifest)
    interpreter = python_tree.find_interpreter(root)
    say(f"environment {places.prefix} for {interpreter.name}")
    python_tree.build(root, places.prefix, interpreter, options.wheels, offline=options.offline)
    say("units, configuration and commands")
    record = manifest.Manifest(root, {entry.path: entry for entry in before.entries} if before else {})
    files.place_all(record, places, kubelet=options.kubelet)
    version = _version(root, places, interpreter)
    record.save(places.manifest, version, places.prefix)
    manager_present = shutil.which("systemctl") is not None
    if manager_present:
        say("units enabled")
        manager.enable(root)
    started = False
    if manager.runs_here(root):
        manager.prepare(places)
        if options.start:
            say("daemons started")
            manager.start(say)
            started = True
    return Installed(version, started, tuple(record.kept), missing)


def _check(root: Path, places: Places) -> None:
    if os.geteuid() != 0:
        raise NotPossible("installing needs root", hint="sudo ./dev install")
    if not root.is_dir():
        raise NotPossible(f"{root} is not a directory")
    if places is CHECKOUT and inside(root, Path("/usr/lib/triptych")).exists():
        raise NotPossible("the Debian package of triptych is installed", hint="apt-get remove triptych")


def _version(root: Path, places: Places, interpreter: python_tree.Interpreter) -> str:
    site = inside(root, places.prefix) / "lib" / interpreter.name / "site-packages"
    name = VERSION_SOURCE.replace("-", "_")
    found = next(site.glob(f"{name}-*.dist-info"), None)
    if found is None:
        raise NotPossible(f"{VERSION_SOURCE} is not among the wheels", hint="./dev package wheels")
    return found.name.removeprefix(f"{name}-").removesuffix(".dist-info")


def _missing(root: Path) -> tuple[str, ...]:
    """Debian packages whose programs are not below the root."""
    directories = [inside(root, Path(name)) for name in ("/usr/bin", "/usr/sbin", "/bin", "/sbin")]
    missing = [
        package
        for programs, package in NEEDED.items()
        if not any(os.path.lexists(place / program) for place in directories for program in programs)
    ]
    if not any((inside(root, Path(name)) / "bridge").exists() for name in ("/opt/cni/bin", "/usr/lib/cni")):
        missing.append("containernetworking-plugins")
    return tuple(missing)
