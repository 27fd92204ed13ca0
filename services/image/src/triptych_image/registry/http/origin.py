"""Where a URL points to (RFC 6454 origins)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, Self
from urllib.parse import quote, urljoin, urlsplit

_PORTS: Final = {"http": 80, "https": 443}
_MAX_URL: Final = 16 << 10
_VISIBLE: Final = re.compile(r"[!-~]+")


class BadUrl(ValueError):
    """A URL that no request can be made to."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host (lower case, no brackets) and port."""

    scheme: str
    host: str
    port: int

    @classmethod
    def parse(cls, url: str) -> tuple[Self, str]:
        """Split an absolute URL into its origin and the request target.

        User information in it is dropped.

        :raises BadUrl: when it is not an http or https URL with a host.
        """
        if len(url) > _MAX_URL:
            raise BadUrl(f"URL is longer than {_MAX_URL} characters")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise BadUrl(str(error)) from None
        scheme = parts.scheme.lower()
        if scheme not in _PORTS:
            raise BadUrl(f"scheme {scheme!r} is not http or https")
        if not parts.hostname:
            raise BadUrl("no host in URL")
        host = domain_name(parts.hostname)
        path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=-._~")
        query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=-._~?')}" if parts.query else ""
        return cls(scheme, host, _PORTS[scheme] if port is None else port), path + query

    @property
    def bracketed(self) -> str:
        """The host as it stands in URLs."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def authority(self) -> str:
        """`host[:port]`, without the scheme's own port."""
        return self.bracketed if self.port == _PORTS[self.scheme] else f"{self.bracketed}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it names this machine by a loopback name or address."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


def domain_name(host: str) -> str:
    """A host as lookups and TLS take it: in ASCII, with labels of 1 to 63 characters.

    :raises BadUrl: when it is none; both would fail with an error of text and not of the network.
    """
    try:
        name = host.encode("idna").decode()
    except UnicodeError:
        name = ""
    if _VISIBLE.fullmatch(name) is None:
        raise BadUrl(f"host {host[:100]!r} is no domain name")
    return name


def join(base: str, location: str) -> str:
    """A URL that may be relative to another one.

    :raises BadUrl: when it is malformed.
    """
    try:
        return urljoin(base, location)
    except ValueError as error:
        raise BadUrl(str(error)) from None


def is_loopback(host: str) -> bool:
    """Whether a host name without port is `localhost` or a loopback address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
