"""Which proxy a URL goes through, by HTTP_PROXY, HTTPS_PROXY and NO_PROXY as Go programs read them."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from triptych_errors import FailedPrecondition

from triptych_image.registry.http.origin import Origin

_DEFAULT_PORT: Final = 80


class InvalidProxy(FailedPrecondition):
    """A proxy variable that cannot be used; the message names it."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy; `authorization` is the value of Proxy-Authorization, or ""."""

    host: str
    port: int
    authorization: str = field(default="", repr=False)


def proxy_for(origin: Origin, environment: Mapping[str, str]) -> Proxy | None:
    """The proxy for an origin, or None to connect directly; loopback is always direct.

    :raises InvalidProxy: when the variable is no http URL.
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
    if parts.scheme != "http" or not parts.hostname:
        raise InvalidProxy(
            f"environment variable {name}: proxies of scheme {parts.scheme!r} are not supported",
            hint="give an http:// URL; https:// registries are tunnelled through it by CONNECT",
        )
    authorization = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return Proxy(parts.hostname, _DEFAULT_PORT if port is None else port, authorization)


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
