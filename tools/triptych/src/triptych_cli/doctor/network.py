"""The pod network: CNI configuration and the plugins that it names."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from triptych_errors import TriptychError
from triptych_linux import process

from triptych_cli.context import DaemonName
from triptych_cli.doctor.model import Finding, Findings, Host, error, info, ok, warning

_DEFAULT = "10-triptych.conflist"
_TABLE = "triptych_nat"
_SECONDS = 10.0
_SUFFIXES = (".conf", ".conflist", ".json")
_REMEDY = "./dev install places a default one; or install a network add-on such as Calico or Cilium"


def check(host: Host) -> Findings:
    """Everything about CNI."""
    conf_dirs = host.setting(DaemonName.RUNTIME, "network.conf_dirs", ["/etc/cni/net.d"])
    bin_dirs = tuple(host.setting(DaemonName.RUNTIME, "network.bin_dirs", ["/opt/cni/bin", "/usr/lib/cni"]))
    files = _files(host, conf_dirs)
    if not files:
        yield error("CNI configuration", f"none in {', '.join(conf_dirs)}: no pod gets a network", _REMEDY)
        if host.which("bridge", bin_dirs) is None:
            yield _no_plugins(bin_dirs)
        return
    first = files[0]
    try:
        document = json.loads(first.read_bytes())
        plugins = document.get("plugins", [document])
        types = [_type(plugin) for plugin in plugins]
    except (OSError, ValueError, AttributeError) as problem:
        yield error("CNI configuration", f"{first}: {problem}", f"correct or remove {first}")
        return
    yield ok("CNI configuration", f"{first}: network {document.get('name', '?')!r}, {' + '.join(types)}")
    if len(files) > 1:
        yield info(
            "CNI configuration", f"{len(files) - 1} more in {first.parent}; the first by name is used"
        )
    yield from _plugins(host, plugins, bin_dirs, first)
    if first.name == _DEFAULT and not any(plugin.get("ipMasq") for plugin in plugins):
        yield _masquerade(host)


def _files(host: Host, directories: list[str]) -> list[Path]:
    found: list[Path] = []
    for directory in directories:
        place = host.path(directory)
        if place.is_dir():
            found += sorted(p for p in place.iterdir() if p.suffix in _SUFFIXES and p.is_file())
    return found


def _type(plugin: Any) -> str:
    kind = plugin.get("type")
    if not isinstance(kind, str) or not kind or "/" in kind:
        raise ValueError("a plugin has no type")
    return kind


def _plugins(host: Host, plugins: list[Any], bin_dirs: tuple[str, ...], file: Path) -> Findings:
    names = [_type(plugin) for plugin in plugins]
    names += [plugin["ipam"]["type"] for plugin in plugins if plugin.get("ipam", {}).get("type")]
    absent = sorted({name for name in names if host.which(name, bin_dirs) is None})
    if absent:
        yield error(
            "CNI plugins",
            f"{file.name} names {', '.join(absent)}, not in {', '.join(bin_dirs)}",
            "apt-get install containernetworking-plugins, or what brought the configuration",
        )
    else:
        yield ok("CNI plugins", ", ".join(dict.fromkeys(names)))
    firewall = any(
        plugin.get("ipMasq") or plugin.get("type") in ("portmap", "firewall") for plugin in plugins
    )
    if firewall and host.which("iptables") is None and host.which("nft") is None:
        yield warning("iptables", "missing: host ports and masquerading fail", "apt-get install iptables")


def _masquerade(host: Host) -> Finding:
    """Whether the rule set is loaded that the default network leaves the pods' way out to."""
    means = "pods reach nothing beyond this node"
    nft = host.which("nft")
    if nft is None:
        return warning("masquerade", f"nft is missing: {means}", "apt-get install nftables")
    try:
        argv = [str(nft), "list", "table", "inet", _TABLE]
        done = asyncio.run(process.run(argv, deadline=_SECONDS, step="nft list table", check=False))
    except TriptychError as problem:
        return warning("masquerade", str(problem), f"run nft list table inet {_TABLE}")
    if done.returncode == 0:
        return ok("masquerade", f"table inet {_TABLE} is loaded")
    said = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason told"]
    if "No such file" in said[0]:
        return warning(
            "masquerade", f"no table inet {_TABLE}: {means}", "systemctl restart triptych-nat.service"
        )
    return warning("masquerade", f"cannot be checked: {said[0]}", "run as root")


def _no_plugins(bin_dirs: tuple[str, ...]) -> Finding:
    return error(
        "CNI plugins", f"none in {', '.join(bin_dirs)}", "apt-get install containernetworking-plugins"
    )
