"""Results of plugins (CNI specification, section 5): reading every version as the newest one."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import msgspec
from triptych_oci import without_nulls

from triptych_runtime.network import _versions
from triptych_runtime.network.errors import ResultInvalid
from triptych_runtime.network.model import Interface, NetworkResult
from triptych_runtime.network.settings import IpPreference


class _Interface(msgspec.Struct, rename="camel", omit_defaults=True):
    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""
    socket_path: str = ""
    pci_id: str = msgspec.field(default="", name="pciID")


class _Address(msgspec.Struct, omit_defaults=True):
    address: str
    gateway: str = ""
    interface: int | None = None


class _Route(msgspec.Struct, omit_defaults=True):
    dst: str
    gw: str = ""
    mtu: int | None = None
    advmss: int | None = None
    priority: int | None = None
    table: int | None = None
    scope: int | None = None


class _Dns(msgspec.Struct, omit_defaults=True):
    nameservers: list[str] = []
    domain: str = ""
    search: list[str] = []
    options: list[str] = []


class CniResult(msgspec.Struct, rename="camel", omit_defaults=True):
    """A result as of version 1.1, which the older ones from 0.3 on are a part of.

    `ips[].version` of 0.3 and 0.4 follows from the address and is dropped.
    """

    cni_version: str = ""
    interfaces: list[_Interface] = []
    ips: list[_Address] = []
    routes: list[_Route] = []
    dns: _Dns = msgspec.field(default_factory=_Dns)


class _LegacyIp(msgspec.Struct):
    ip: str
    gateway: str = ""
    routes: list[_Route] = []


class _LegacyResult(msgspec.Struct, rename="camel"):
    """A result of versions 0.1 and 0.2: one address of each family, no interfaces."""

    cni_version: str = ""
    ip4: _LegacyIp | None = None
    ip6: _LegacyIp | None = None
    dns: _Dns = msgspec.field(default_factory=_Dns)


def decode(raw: bytes, plugin: str) -> dict[str, Any]:
    """The JSON object that a plugin printed, as it is; the next plugin of the chain gets it back.

    :raises ResultInvalid: when it is none.
    """
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ResultInvalid(f"CNI plugin {plugin}: ADD: not a result: {error}") from None


def parse(result: dict[str, Any], network: str) -> CniResult:
    """Read a result of any version.

    :raises ResultInvalid: naming what is wrong with it.
    """
    result = without_nulls(result)
    version = result.get("cniVersion", "")
    try:
        if version not in ("", *_versions.SUPPORTED):
            raise ValueError(f"cniVersion {version!r} is not known")
        if "ip4" in result or "ip6" in result or version in ("0.1.0", "0.2.0"):
            parsed = _modern(msgspec.convert(result, _LegacyResult))
        else:
            parsed = msgspec.convert(result, CniResult)
        for entry in parsed.ips:
            ipaddress.ip_interface(entry.address)
            if entry.interface is not None and not 0 <= entry.interface < len(parsed.interfaces):
                raise ValueError(
                    f"address {entry.address} is of interface {entry.interface}, which is not listed"
                )
    except ValueError as error:
        raise ResultInvalid(f"network {network!r}: result: {error}") from None
    parsed.cni_version = _versions.LATEST
    return parsed


def _modern(legacy: _LegacyResult) -> CniResult:
    result = CniResult(dns=legacy.dns)
    for entry in (legacy.ip4, legacy.ip6):
        if entry is not None:
            result.ips.append(_Address(entry.ip, entry.gateway))
            result.routes += entry.routes
    return result


def for_version(result: dict[str, Any], version: str) -> dict[str, Any]:
    """A result to be given as `prevResult` to a plugin of another version than the one that made it.

    :raises ResultInvalid: when the result cannot be read.
    """
    if result.get("cniVersion") == version:
        return result
    parsed = parse(result, "prevResult")
    parsed.cni_version = version
    plain: dict[str, Any] = msgspec.to_builtins(parsed)
    plain["cniVersion"] = version
    if not _versions.at_least(version, "1.1.0"):
        for entry in plain.get("interfaces", ()):
            for key in ("mtu", "socketPath", "pciID"):
                entry.pop(key, None)
        for route in plain.get("routes", ()):
            for key in ("mtu", "advmss", "priority", "table", "scope"):
                route.pop(key, None)
    if not _versions.at_least(version, "1.0.0"):
        for entry in plain.get("ips", ()):
            entry["version"] = str(ipaddress.ip_interface(entry["address"]).version)
    return plain


def summarise(results: Sequence[tuple[str, str, dict[str, Any]]], preference: IpPreference) -> NetworkResult:
    """The network of a pod from the results of its attachments.

    The pod's addresses are those of its first network, of the interface that was asked for where a plugin
    names interfaces at all.

    :param results: (network name, interface name, result), the first network first.
    :raises ResultInvalid: when the first network gave the pod no address.
    """
    ips: list[str] = []
    interfaces: list[Interface] = []
    raw: dict[str, dict[str, Any]] = {}
    for index, (network, ifname, result) in enumerate(results):
        parsed = parse(result, network)
        if index == 0:
            ips = _ordered(_addresses(parsed, ifname), preference)
            if not ips:
                raise ResultInvalid(f"network {network!r}: its plugins gave interface {ifname} no address")
        interfaces += _interfaces(parsed)
        raw[network] = msgspec.to_builtins(parsed)
    return NetworkResult(ips, interfaces, raw)


def _addresses(parsed: CniResult, ifname: str) -> list[str]:
    inside = [i for i, entry in enumerate(parsed.interfaces) if entry.sandbox]
    named = [i for i in inside if parsed.interfaces[i].name == ifname]
    wanted = set(named or inside)
    return [
        str(ipaddress.ip_interface(entry.address).ip)
        for entry in parsed.ips
        if entry.interface is None or entry.interface in wanted
    ]


def _ordered(ips: list[str], preference: IpPreference) -> list[str]:
    """The preferred family's first address to the front; all else keeps the order of the plugins."""
    if preference is not IpPreference.CNI:
        family = 4 if preference is IpPreference.IPV4 else 6
        for index, ip in enumerate(ips):
            if ipaddress.ip_address(ip).version == family:
                return [ip, *ips[:index], *ips[index + 1 :]]
    return ips


def _interfaces(parsed: CniResult) -> list[Interface]:
    addresses: dict[int, list[str]] = {}
    for entry in parsed.ips:
        if entry.interface is not None:
            addresses.setdefault(entry.interface, []).append(entry.address)
    return [
        Interface(entry.name, entry.mac, entry.sandbox, entry.mtu, tuple(addresses.get(index, ())))
        for index, entry in enumerate(parsed.interfaces)
    ]
