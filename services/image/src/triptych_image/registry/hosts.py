"""Which hosts serve a registry, in order; configured by directories, read on each pull."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from triptych_oci import DEFAULT_DOMAIN, InvalidReference

from triptych_image.registry.credentials import same_server
from triptych_image.registry.errors import InvalidHostsConfig
from triptych_image.registry.hosts_toml import (
    ALL,
    Capability,
    HostEntry,
    docker_certificates,
    parse_hosts,
)
from triptych_image.registry.http import Link, Origin, TlsConfig
from triptych_image.registry.http.origin import BadUrl
from triptych_image.registry.http.tls import DEFAULT_TLS

_HUB: Final = "registry-1.docker.io"
_DEFAULT_DIRECTORY: Final = "_default"
_MAX_FILE: Final = 1 << 20

_Identity = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Host:
    """One host that serves a registry.

    :param base: URL that `/<repository>/manifests/...` is appended to.
    :param namespace: the registry's name when the host is a mirror of it, for the `ns` query parameter.
    :param is_registry: whether it is the registry itself, so that the request's credentials are for it.
    """

    link: Link
    base: str
    capabilities: Capability
    namespace: str
    is_registry: bool

    @property
    def name(self) -> str:
        """`host[:port]`, for errors and progress."""
        return self.link.origin.authority


class HostsConfig:
    """Reads host directories; what was parsed is kept until the file changes."""

    def __init__(self) -> None:
        self._parsed: dict[Path, tuple[_Identity, list[HostEntry]]] = {}

    def hosts(self, domain: str, roots: Sequence[str]) -> list[Host]:
        """The hosts of a registry in order of preference, the registry itself last unless replaced.

        :param roots: directories to search; the first with a directory for the registry is taken.
        :raises InvalidHostsConfig: naming the file.
        :raises InvalidReference: when the registry is asked itself and its name is none that can be.
        """
        directory = _find(domain, roots)
        entries = [HostEntry()] if directory is None else self._entries(directory)
        # The `server` of the registry's own directory is the operator's word for where the registry is.
        own = directory is None or directory.name != _DEFAULT_DIRECTORY
        *mirrors, server = entries
        try:
            last = _host(server, domain, own)
        except BadUrl as error:
            raise InvalidReference(domain, str(error)) from None
        return [*_without(last, [_host(entry, domain, False) for entry in mirrors]), last]

    def _entries(self, directory: Path) -> list[HostEntry]:
        file = directory / "hosts.toml"
        try:
            status = os.stat(file)
            identity = (status.st_ino, status.st_size, status.st_mtime_ns)
            known = self._parsed.get(file)
            if known is not None and known[0] == identity:
                return known[1]
            if status.st_size > _MAX_FILE:
                raise InvalidHostsConfig(f"{file}: larger than {_MAX_FILE} bytes")
            text = file.read_bytes()
        except FileNotFoundError:
            text, identity = b"", (0, 0, 0)
        except OSError as error:
            raise InvalidHostsConfig(f"{file}: {error.strerror}") from None
        if not text:
            return [HostEntry(tls=docker_certificates(directory))]
        entries = parse_hosts(text, file)
        self._parsed[file] = (identity, entries)
        return entries


def _find(domain: str, roots: Sequence[str]) -> Path | None:
    """The directory for a registry: `host_port_`, `host:port`, then `_default`."""
    host, colon, port = domain.rpartition(":")
    names = [f"{host}_{port}_", domain] if colon and port.isdecimal() and host else [domain]
    for wanted in (names, [_DEFAULT_DIRECTORY]):
        for root in filter(None, roots):
            for name in wanted:
                directory = Path(root, name)
                if directory.is_dir():
                    return directory
    return None


def _host(entry: HostEntry, domain: str, is_server: bool) -> Host:
    tls = entry.tls
    scheme, server, capabilities = entry.scheme, entry.server, entry.capabilities
    if not server:
        server = _HUB if domain == DEFAULT_DOMAIN else domain
        scheme, tls = _default_scheme(server, tls)
        capabilities = ALL  # as containerd; those of the file are those of a `server`
    origin, _ = Origin.parse(f"{scheme}://{server}")
    fallback = False
    if origin.scheme == "http" and tls is not None and origin.port != 80:
        # TLS was configured for a host of plain HTTP: TLS first, plain when it does not speak it.
        origin, fallback = Origin("https", origin.host, origin.port), True
    mirror = server != domain and not (domain == DEFAULT_DOMAIN and server == _HUB)
    return Host(
        Link(origin, tls or DEFAULT_TLS, entry.headers, entry.dial_seconds, fallback),
        f"{origin}{entry.path}",
        capabilities,
        domain if mirror else "",
        is_server or same_server(server, domain),
    )


def _without(server: Host, mirrors: list[Host]) -> list[Host]:
    """The mirrors but the server itself, where it comes next anyway."""
    if mirrors and mirrors[-1].link == server.link and mirrors[-1].base == server.base:
        return mirrors[:-1] if mirrors[-1].capabilities in server.capabilities else mirrors
    return mirrors


def _default_scheme(server: str, tls: TlsConfig | None) -> tuple[str, TlsConfig | None]:
    """What peers do for a host nobody configured: https, but on loopback whatever it speaks."""
    origin, _ = Origin.parse(f"https://{server}")
    if not origin.is_loopback:
        return "https", tls
    ambiguous = origin.port not in (80, 443)
    if origin.port != 80:
        tls = replace(tls or TlsConfig(), skip_verify=True)
    # Without a port containerd takes https for loopback names; with port 80 only plain HTTP.
    return ("http" if ambiguous or (origin.port == 80) else "https"), tls
