"""The files of deploy/ in their places."""

from __future__ import annotations

from pathlib import Path

from triptych_dev.node.manifest import Kind, Manifest
from triptych_dev.node.places import COMMANDS, DAEMONS, WRITTEN_PREFIX, Places, inside
from triptych_dev.node.shell import CHECKOUT_ROOT

DEPLOY = CHECKOUT_ROOT / "deploy"
DOCS = CHECKOUT_ROOT / "docs"
KUBELET_DROP_IN = Path("/etc/systemd/system/kubelet.service.d/20-triptych.conf")
NFTABLES_DROP_IN = Path("nftables.service.d/triptych.conf")
"""Below the directory of units."""

CRICTL = Path("/etc/crictl.yaml")
CNI_CONFIG = Path("/etc/cni/net.d")


def place_all(manifest: Manifest, places: Places, *, kubelet: bool) -> None:
    """Write units, configuration and the small files around them.

    :param kubelet: also the kubelet's drop-in; one that is there already is kept up to date.
    """
    for unit in sorted((DEPLOY / "systemd").iterdir()):
        _copy(manifest, unit, places.units / unit.name, Kind.UNIT, places)
    _copy(manifest, DEPLOY / "nftables/triptych.conf", places.units / NFTABLES_DROP_IN, Kind.UNIT, places)
    _copy(
        manifest, DEPLOY / "tmpfiles.d/triptych.conf", places.tmpfiles / "triptych.conf", Kind.UNIT, places
    )
    modules = places.modules / "triptych.conf"
    _copy(manifest, DEPLOY / "modules-load.d/triptych.conf", modules, Kind.UNIT, places)
    sysctl = places.sysctl / "60-triptych.conf"
    _copy(manifest, DEPLOY / "sysctl.d/60-triptych.conf", sysctl, Kind.UNIT, places)
    for daemon in DAEMONS:
        name = f"{daemon}.toml"
        _copy(manifest, DEPLOY / "etc" / name, places.config / name, Kind.CONFIG, places)
    for command in COMMANDS:
        manifest.link(places.commands / command, places.prefix / "bin" / command, Kind.PROGRAM)
    if kubelet or str(KUBELET_DROP_IN) in manifest.before:
        _copy(manifest, DEPLOY / "kubelet/20-triptych.conf", KUBELET_DROP_IN, Kind.CONFIG, places)
    _place_crictl(manifest, places)
    _place_network(manifest, places)
    _place_docs(manifest.root, places)


def _copy(manifest: Manifest, source: Path, to: Path, kind: Kind, places: Places) -> None:
    text = source.read_text().replace(f"{WRITTEN_PREFIX}/", f"{places.prefix}/")
    manifest.write(to, text.encode(), kind)


def _place_crictl(manifest: Manifest, places: Places) -> None:
    """crictl's configuration, unless another runtime's is there."""
    if not inside(manifest.root, CRICTL).exists() or str(CRICTL) in manifest.before:
        _copy(manifest, DEPLOY / "crictl.yaml", CRICTL, Kind.CONFIG, places)


def _place_network(manifest: Manifest, places: Places) -> None:
    """The default pod network, on a node that has none."""
    directory = inside(manifest.root, CNI_CONFIG)
    shipped = sorted((DEPLOY / "cni").glob("*.conflist"))
    names = {conflist.name for conflist in shipped}
    others = [
        entry.name
        for entry in (directory.iterdir() if directory.is_dir() else ())
        if entry.suffix in (".conf", ".conflist", ".json") and entry.name not in names
    ]
    if not others:
        for conflist in shipped:
            _copy(manifest, conflist, CNI_CONFIG / conflist.name, Kind.CONFIG, places)
        # Loaded by triptych-nat.service, since the shipped network leaves the masquerade to it.
        _copy(manifest, DEPLOY / "cni/triptych-nat.nft", places.config / "nat.nft", Kind.CONFIG, places)


def _place_docs(root: Path, places: Places) -> None:
    """The pages that the units name; below the prefix, so they go with it."""
    target = inside(root, places.docs)
    target.mkdir(parents=True, exist_ok=True)
    for page in sorted(DOCS.glob("*.md")):
        (target / page.name).write_bytes(page.read_bytes())
