"""./dev uninstall: nothing stays but what was asked to."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from triptych_cli.context import DaemonName
from triptych_cli.doctor import configured
from triptych_linux import mounts

from triptych_dev.node import files, manager, manifest, pods, rules
from triptych_dev.node.errors import NotPossible
from triptych_dev.node.manifest import Document, Kind
from triptych_dev.node.places import CHECKOUT, Places, inside
from triptych_dev.node.shell import run

STATE = (Path("/var/lib/triptych"), Path("/run/triptych"))
_DIRECTORIES = {
    DaemonName.IMAGE: ("root", "rootfs_root"),
    DaemonName.RUNTIME: ("root", "state"),
    DaemonName.STREAMING: ("state",),
}
"""Keys of the daemons' configuration that name a directory of theirs; unless set, all are below STATE."""

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
    elsewhere = _elsewhere(inside(root, places.config))
    say("files removed")
    _remove_files(root, document, keep_config=options.keep_config)
    shutil.rmtree(inside(root, places.prefix))
    if not options.keep_data:
        say("state removed")
        _remove_state(root, live=live)
        if live and not options.keep_pods:
            _remove_networks(networks)
    if live:
        manager.forget()
    left = [] if options.keep_data else list(_state_elsewhere(root, elsewhere))
    return [*left, *(left_over(options, elsewhere) if live else ())]


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


def _remove_state(root: Path, *, live: bool) -> None:
    for directory in STATE:
        if live:
            mounts.umount_below(directory)
        shutil.rmtree(inside(root, directory), ignore_errors=not live)


def _elsewhere(config: Path) -> dict[Path, str]:
    """Directories that the configuration gives to the daemons outside of STATE, each with what names it."""
    settings = configured.read(config)
    named = {
        Path(value): f"{key} of {daemon.value}.toml"
        for daemon, keys in _DIRECTORIES.items()
        for key in keys
        if isinstance(value := settings[daemon].get(key), str) and value
    }
    return {
        path: why
        for path, why in named.items()
        if path.is_absolute() and not any(path.is_relative_to(directory) for directory in STATE)
    }


def _state_elsewhere(root: Path, elsewhere: dict[Path, str]) -> Iterator[str]:
    """Told and not removed: an operator chose the directory, and may keep other things in it."""
    for directory, why in elsewhere.items():
        if inside(root, directory).exists():
            yield f"directory {directory}, {why}; remove it if nothing else is in it"


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


def left_over(options: UninstallOptions, elsewhere: Collection[Path]) -> Iterator[str]:
    """What of triptych is still on this machine.

    :param elsewhere: directories where its mounts may be, beside those of STATE; one that is a mount itself
        is an operator's disk.
    """
    for directory in (options.places.prefix, *(() if options.keep_data else STATE)):
        if directory.exists():
            yield f"directory {directory}"
    if not options.keep_config and options.places.config.exists():
        yield f"directory {options.places.config}"
    for entry in mounts.mount_table():
        point = Path(entry.mount_point)
        if point not in elsewhere and any(point.is_relative_to(place) for place in (*STATE, *elsewhere)):
            yield f"mount {point}"
    for unit in sorted(options.places.units.glob("triptych*")):
        yield f"unit {unit}"
    for group in sorted(Path("/sys/fs/cgroup").glob("**/triptych*")):
        yield f"cgroup {group}"
