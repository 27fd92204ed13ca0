"""`hosts.toml` as containerd reads it (containerd, docs/hosts.md)."""

from __future__ import annotations

import enum
import posixpath
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from triptych_image.registry.durations import parse_duration
from triptych_image.registry.errors import InvalidHostsConfig
from triptych_image.registry.http.origin import domain_name
from triptych_image.registry.http.tls import TlsConfig


class Capability(enum.Flag):
    """What a host is asked for."""

    PULL = enum.auto()
    RESOLVE = enum.auto()
    PUSH = enum.auto()
    REFERRERS = enum.auto()


ALL: Final = Capability.PULL | Capability.RESOLVE | Capability.PUSH | Capability.REFERRERS


@dataclass(frozen=True, slots=True)
class HostEntry:
    """One host of a file.

    :param server: its address; "" in the last entry stands for the registry itself.
    :param tls: None when the file says nothing about TLS.
    """

    scheme: str = ""
    server: str = ""
    path: str = "/v2"
    capabilities: Capability = ALL
    tls: TlsConfig | None = None
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    dial_seconds: float | None = None


def parse_hosts(text: bytes, file: Path) -> list[HostEntry]:
    """The hosts of a file in order; the last one is its `server`, or stands for the registry itself.

    :raises InvalidHostsConfig: naming file and key.
    """
    import tomllib  # many nodes have no such file

    try:
        document = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidHostsConfig(f"{file}: {error}") from None
    tables = document.get("host", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise InvalidHostsConfig(f"{file}: host: expected tables [host.'https://...']")
    # A TOML document keeps its tables in the order of their first mention, as containerd takes them.
    entries = [_Reader(file, f"host.{name!r}.", table).entry(name) for name, table in tables.items()]
    server = document.get("server", "")
    if not isinstance(server, str):
        raise InvalidHostsConfig(f"{file}: server: expected a string")
    return [*entries, _Reader(file, "", document).entry(server)]


def docker_certificates(directory: Path) -> TlsConfig | None:
    """Docker's layout: `*.crt` to trust, `*.cert` with `*.key` to show; None without any.

    :raises InvalidHostsConfig: when the directory cannot be read.
    """
    try:
        names = sorted(entry.name for entry in directory.iterdir() if entry.is_file())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InvalidHostsConfig(f"{directory}: {error.strerror}") from None
    ca = tuple(str(directory / name) for name in names if name.endswith(".crt"))
    keys = {name for name in names if name.endswith(".key")}
    pairs = []
    for name in names:
        if name.endswith(".cert"):
            key = f"{name.removesuffix('.cert')}.key"
            pairs.append((str(directory / name), str(directory / key) if key in keys else ""))
    return TlsConfig(ca, tuple(pairs)) if ca or pairs else None


class _Reader:
    """Reads the keys of one table, with errors that name file and key."""

    def __init__(self, file: Path, prefix: str, table: dict[str, Any]) -> None:
        self._file = file
        self._prefix = prefix
        self._table = table

    def entry(self, server: str) -> HostEntry:
        scheme, authority, path = self._server(server)
        return HostEntry(
            scheme,
            authority,
            path,
            self._capabilities(),
            self._tls(),
            self._headers(),
            self._dial_seconds(),
        )

    def _bad(self, key: str, reason: str) -> InvalidHostsConfig:
        return InvalidHostsConfig(f"{self._file}: {self._prefix}{key}: {reason}")

    def _server(self, server: str) -> tuple[str, str, str]:
        override = self._flag("override_path")
        if not server:
            return "", "", "/v2"
        try:
            parts = urlsplit(server if "://" in server else f"https://{server}")
            port = parts.port
            if parts.hostname:
                domain_name(parts.hostname)
        except ValueError as error:
            raise self._bad("", f"{server!r}: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise self._bad("", f"{server!r} is no http or https address")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        authority = host if port is None else f"{host}:{port}"
        path = posixpath.normpath(parts.path).rstrip("/") if parts.path else ""
        if not override and not path.endswith("/v2"):
            path += "/v2"
        return parts.scheme, authority, path

    def _flag(self, key: str) -> bool:
        value = self._table.get(key, False)
        if not isinstance(value, bool):
            raise self._bad(key, "expected true or false")
        return value

    def _capabilities(self) -> Capability:
        names = self._table.get("capabilities", [])
        if not isinstance(names, list):
            raise self._bad("capabilities", "expected a list")
        found = Capability(0)
        for name in names:
            try:
                found |= Capability[str(name).upper()]
            except KeyError:
                raise self._bad("capabilities", f"unknown capability {name!r}") from None
        return found or ALL

    def _tls(self) -> TlsConfig | None:
        said = [key for key in ("ca", "client", "skip_verify") if key in self._table]
        if not said:
            return None
        return TlsConfig(self._ca(), self._pairs(), self._flag("skip_verify"))

    def _path(self, name: str) -> str:
        return str(self._file.parent / name)

    def _ca(self) -> tuple[str, ...]:
        value = self._table.get("ca", [])
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise self._bad("ca", "expected a path or a list of paths")
        return tuple(self._path(name) for name in names)

    def _pairs(self) -> tuple[tuple[str, str], ...]:
        value = self._table.get("client", [])
        pairs = []
        for item in [value] if isinstance(value, str) else value if isinstance(value, list) else [None]:
            match item:
                case str():
                    pairs.append((self._path(item), ""))
                case [str() as certificate, str() as key]:
                    pairs.append((self._path(certificate), self._path(key)))
                case _:
                    raise self._bad("client", "expected a path, a list of paths, or a list of [cert, key]")
        return tuple(pairs)

    def _headers(self) -> tuple[tuple[str, str], ...]:
        table = self._table.get("header", {})
        if not isinstance(table, dict):
            raise self._bad("header", "expected a table")
        headers = []
        for name, value in table.items():
            values = [value] if isinstance(value, str) else value
            if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
                raise self._bad(f"header.{name}", "expected a string or a list of strings")
            headers += [(name, one) for one in values]
        return tuple(headers)

    def _dial_seconds(self) -> float | None:
        value = self._table.get("dial_timeout", "")
        if not value:
            return None
        try:
            return parse_duration(value) or None
        except (TypeError, ValueError) as error:
            raise self._bad("dial_timeout", str(error)) from None
