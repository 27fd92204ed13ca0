"""Which proxy a URL goes through, by HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Go programs read them."""

from __future__ import annotations

import base64
import enum
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from triptych_errors import FailedPrecondition

from triptych_image.registry.http.origin import BadUrl, Origin, domain_name

# RFC 1929 has a byte for the length of each.
_SOCKS_MOST: Final = 255


class InvalidProxy(FailedPrecondition):
    """A proxy variable that cannot be used; the message names it."""


class ProxyKind(enum.Enum):
    """How a proxy is spoken to: plain, over TLS, or by SOCKS."""

    HTTP = "http"
    HTTPS = "https"
    SOCKS5 = "socks5"


# As Go's net/http, SOCKS5 proxies look names up themselves, with and without the "h".
_KINDS: Final = {
    "http": (ProxyKind.HTTP, 80),
    "https": (ProxyKind.HTTPS, 443),
    "socks5": (ProxyKind.SOCKS5, 1080),
    "socks5h": (ProxyKind.SOCKS5, 1080),
}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy; `username` is None when its URL has no user information."""

    kind: ProxyKind
    host: str
    port: int
    username: str | None = field(default=None, repr=False)
    password: str = field(default="", repr=False)

    @property
    def authorization(self) -> str:
        """The value of Proxy-Authorization, or ""."""
        if self.username is None:
            return ""
        pair = f"{self.username}:{self.password}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"


def proxy_for(origin: Origin, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy for an origin, or None to connect directly; loopback is always direct.

    :raises InvalidProxy: when the variable is no URL of a known kind.
    """
    if origin.is_loopback:
        return None
    names = ("HTTPS_PROXY", "https_proxy") if origin.scheme == "https" else ("HTTP_PROXY", "http_proxy")
    name = next((name for name in names if environment.get(name)), None)
    if name is None or _excluded(origin, environment.get("NO_PROXY") or environment.get("no_proxy") or ""):
        return None
    return _parse(name, environment[name])


def _parse(name: str, value: str) -> Proxy:
    try:
        parts = urlsplit(value if "://" in value else f"http://{value}")
        port = parts.port
    except ValueError:
        raise InvalidProxy(f"environment variable {name} is no URL") from None
    if parts.scheme not in _KINDS or not parts.hostname:
        raise InvalidProxy(
            f"environment variable {name}: proxies of scheme {parts.scheme!r} are not supported",
            hint=f"give a URL of one of the schemes {', '.join(_KINDS)}",
        )
    try:
        host = domain_name(parts.hostname)
    except BadUrl as error:
        raise InvalidProxy(f"environment variable {name}: {error}") from None
    kind, usual_port = _KINDS[parts.scheme]
    username = None if parts.username is None else unquote(parts.username)
    password = unquote(parts.password or "")
    if kind is ProxyKind.SOCKS5:
        _check_socks(name, username, password)
    return Proxy(kind, host, usual_port if port is None else port, username, password)


def _check_socks(name: str, username: str | None, password: str) -> None:
    if username is None:
        return
    for what, text in (("user name", username), ("password", password)):
        if not 1 <= len(text.encode()) <= _SOCKS_MOST:
            raise InvalidProxy(
                f"environment variable {name}: SOCKS5 takes a {what} of 1 to {_SOCKS_MOST} bytes"
            )


def _excluded(origin: Origin, rules: str) -> bool:
    try:
        address = ipaddress.ip_address(origin.host)
    except ValueError:
        address = None
    return any(_matches(rule.strip().lower(), origin, address) for rule in rules.split(","))


def _matches(
    rule: str, origin: Origin, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None
) -> bool:
    if not rule:
        return False
    if rule == "*":
        return True
    if address is not None and "/" in rule:
        try:
            return address in ipaddress.ip_network(rule, strict=False)
        except ValueError:
            return False
    rule, port = _split_port(rule)
    if port is not None and port != origin.port:
        return False
    if address is not None:
        try:
            return address == ipaddress.ip_address(rule.strip("[]"))
        except ValueError:
            return False
    if rule.startswith("*."):
        rule = rule[1:]
    if rule.startswith("."):
        return origin.host.endswith(rule)
    return origin.host == rule or origin.host.endswith(f".{rule}")


def _split_port(rule: str) -> tuple[str, int | None]:
    head, colon, tail = rule.rpartition(":")
    if colon and tail.isdecimal() and (":" not in head or head.endswith("]")):
        return head, int(tail)
    return rule, None
