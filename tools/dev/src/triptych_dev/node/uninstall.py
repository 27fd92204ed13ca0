"""./dev uninstall: nothing stays but what was asked to."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from triptych_cli.context import DaemonName
from triptych_cli.doctor import configured
from triptych_linux import mounts

from triptych_dev.daemons import SETTINGS
from triptych_dev.node import files, manager, manifest, pods, rules
from triptych_dev.node.errors import NotPossible
from triptych_dev.node.manifest import Document, Kind
from triptych_dev.node.places import CHECKOUT, Places, inside
from triptych_dev.node.shell import run

STATE = (Path("/var/lib/triptych"), Path("/run/triptych"))
_SHARED = Path("/run/nri")
"""Where NRI plugins connect, whichever runtime serves them: it goes when nobody does."""
_DIRECTORIES = {
    DaemonName.IMAGE: ("root", "rootfs_root"),
    DaemonName.RUNTIME: ("root", "state"),
    DaemonName.STREAMING: ("state",),
}
"""Keys of the daemons' configuration that name a directory of theirs; unless set, all are below STATE.

The daemons mount below their directories and never at one: what is mounted there is an operator's disk.
"""

RUNTIME_SOCKET = Path("/run/triptych/runtime.sock")


@dataclass(frozen=True, slots=True)
class UninstallOptions:
    """How much goes.

    :param keep_pods: leave running pods alone; the machine is to be cleaned by other means.
    :param keep_config: leave /etc/triptych and the other configuration files.
    :param keep_data: leave images and state.
    """

    root: Path = Path("/")
    places: Places = CHECKOUT
    keep_pods: bool = False
    keep_config: bool = False
    keep_data: bool = False


def uninstall(options: UninstallOptions, say: Callable[[str], None]) -> list[str]:
    """Take the node apart; gives what is left of it, one line each, empty when nothing is.

    :raises NotPossible: not root, nothing installed, or pods that cannot be removed.
    """
    root, places = options.root.resolve(), options.places
    if os.geteuid() != 0:
        raise NotPossible("uninstalling needs root", hint="sudo ./dev uninstall")
    document = manifest.load(root, places.manifest)
    if document is None:
        raise NotPossible(f"nothing is installed at {places.prefix}")
    live = manager.runs_here(root)
    if live:
        if not options.keep_pods:
            say("pods stopped and removed")
            pods.remove_all(RUNTIME_SOCKET)
        say("daemons stopped")
        manager.stop_and_disable()
    elif shutil.which("systemctl") is not None:
        services = (*manager.SERVICES, *manager.SOCKETS, manager.NAT)
        run(["systemctl", f"--root={root}", "-q", "disable", *services], step="disable units", check=False)
    networks = _networks(root, document)
    directories = _directories(inside(root, places.config))
    disks = [path for path in sorted({*STATE, *directories}) if mounts.is_mount_point(inside(root, path))]
    say("files removed")
    _remove_files(root, document, keep_config=options.keep_config)
    shutil.rmtree(inside(root, places.prefix))
    if not options.keep_data:
        say("state removed")
        _remove_state(root, disks)
        if live and not options.keep_pods:
            _remove_networks(networks)
    if live:
        manager.forget()
    left = [] if options.keep_data else list(_state_elsewhere(root, directories, disks))
    return [*left, *(left_over(options, directories) if live else ())]


def _remove_files(root: Path, document: Document, *, keep_config: bool) -> None:
    parents: set[Path] = set()
    for entry in document.entries:
        if entry.kind is Kind.CONFIG and keep_config:
            continue
        target = inside(root, Path(entry.path))
        target.unlink(missing_ok=True)
        parents.add(target.parent)
    for parent in sorted(parents, key=lambda path: -len(path.parts)):
        if (
            parent.name in ("triptych", "kubelet.service.d", files.NFTABLES_DROP_IN.parent.name)
            and parent.is_dir()
            and not any(parent.iterdir())
        ):
            parent.rmdir()
    if not keep_config:
        shutil.rmtree(inside(root, Path("/etc/triptych")), ignore_errors=True)


def _remove_state(root: Path, disks: Collection[Path]) -> None:
    kept = [inside(root, disk) for disk in disks]
    for directory in (inside(root, path) for path in STATE):
        mounts.umount_below(directory, keep=kept)
        # A container's or image's tree may be deeper than Python can go, and hold what cannot be removed.
        run(["rm", "-rf", "--", *_removable(directory, kept)], step="remove state", check=False)
    with contextlib.suppress(OSError):
        inside(root, _SHARED).rmdir()


def _removable(path: Path, disks: Collection[Path]) -> Iterator[Path]:
    """The path; where it is a disk or leads to one, all below it that does not."""
    if any(disk.is_relative_to(path) for disk in disks):
        for entry in path.iterdir():
            yield from _removable(entry, disks)
    else:
        yield path


def _directories(config: Path) -> dict[Path, str]:
    """The daemons' directories as configured or by default, each with what names it."""
    settings = configured.read(config)
    named = (
        (settings[daemon].get(key, getattr(SETTINGS[daemon.value](), key)), f"{key} of {daemon.value}.toml")
        for daemon, keys in _DIRECTORIES.items()
        for key in keys
    )
    return {Path(value): why for value, why in named if isinstance(value, str) and value.startswith("/")}


def _in_state(path: Path) -> bool:
    return any(path.is_relative_to(directory) for directory in STATE)


def _state_elsewhere(root: Path, directories: dict[Path, str], disks: Collection[Path]) -> Iterator[str]:
    """Told and not removed: an operator chose the directory, and may keep other things in it."""
    for directory, why in directories.items():
        if not _in_state(directory) and inside(root, directory).exists():
            yield f"directory {directory}, {why}; remove it if nothing else is in it"
    for disk in filter(_in_state, disks):
        yield f"mount {disk}; it was not triptych that mounted it"


@dataclass(frozen=True, slots=True)
class _Network:
    """A network of a shipped CNI configuration: its name, its bridge and where its addresses are kept."""

    name: str
    bridge: str
    addresses: Path


def _networks(root: Path, document: Document) -> list[_Network]:
    found: list[_Network] = []
    for entry in document.entries:
        path = Path(entry.path)
        if path.parent != files.CNI_CONFIG or path.suffix != ".conflist":
            continue
        config = json.loads(inside(root, path).read_bytes())
        for plugin in config.get("plugins", ()):
            if plugin.get("type") == "bridge":
                data = plugin.get("ipam", {}).get("dataDir", "/var/lib/cni/networks")
                found.append(_Network(config["name"], plugin.get("bridge", ""), Path(data) / config["name"]))
    return found


def _remove_networks(networks: list[_Network]) -> None:
    """The bridge that the CNI plugin made for our pods, and its address book, once no pod uses them."""
    for network in networks:
        ports = Path(f"/sys/class/net/{network.bridge}/brif")
        if network.bridge and ports.is_dir() and not any(ports.iterdir()):
            run(["ip", "link", "del", network.bridge], step="remove bridge", check=False)
        shutil.rmtree(network.addresses, ignore_errors=True)
    if networks:
        rules.remove_entry_points()


def left_over(options: UninstallOptions, directories: Collection[Path]) -> Iterator[str]:
    """What of triptych is still on this machine.

    :param directories: those of the daemons; what is mounted at one is an operator's disk.
    """
    theirs = {*STATE, *directories}
    points = [Path(entry.mount_point) for entry in mounts.mount_table()]
    disks = theirs.intersection(points)
    for directory in (options.places.prefix, *(() if options.keep_data else STATE)):
        if directory.exists() and not any(disk.is_relative_to(directory) for disk in disks):
            yield f"directory {directory}"
    if not options.keep_config and options.places.config.exists():
        yield f"directory {options.places.config}"
    for point in points:
        if point not in disks and any(point.is_relative_to(place) for place in theirs):
            yield f"mount {point}"
    for unit in sorted(options.places.units.glob("triptych*")):
        yield f"unit {unit}"
    for group in sorted(Path("/sys/fs/cgroup").glob("**/triptych*")):
        yield f"cgroup {group}"
