"""Credentials and which host they are for."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from triptych_image.registry.errors import InvalidCredentials

if TYPE_CHECKING:
    from runtime.v1 import api_pb2

DOCKER_HUB = frozenset({"docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


@dataclass(frozen=True, slots=True)
class Credentials:
    """What proves who pulls; never shown by repr.

    :param identity_token: an OAuth2 refresh token.
    :param registry_token: a bearer token to send as it is.
    :param server_address: host (or URL of it) that they are for; "" for the registry of the image.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)
    server_address: str = ""

    def __repr__(self) -> str:
        return f"Credentials(for {self.server_address or 'the registry of the image'})"

    def __bool__(self) -> bool:
        return bool(self.username or self.password or self.identity_token or self.registry_token)

    @property
    def server(self) -> str:
        """`server_address` as `host[:port]`, lower case; raises as `server_of`."""
        return server_of(self.server_address)

    @classmethod
    def from_cri(cls, auth: api_pb2.AuthConfig) -> Self | None:
        """From the AuthConfig of a CRI request; None when it carries nothing.

        Order of precedence as in containerd (username, identity token, auth), then `registry_token`.

        :raises InvalidCredentials: when `auth` is no base64 of `user:password`.
        """
        where = auth.server_address
        if auth.username:
            return cls(username=auth.username, password=auth.password, server_address=where)
        if auth.identity_token:
            return cls(identity_token=auth.identity_token, server_address=where)
        if auth.auth:
            username, password = decode_auth(auth.auth, "AuthConfig.auth")
            return cls(username=username, password=password, server_address=where)
        if auth.registry_token:
            return cls(registry_token=auth.registry_token, server_address=where)
        return None


def decode_auth(text: str, what: str) -> tuple[str, str]:
    """Decode base64 of `user:password` as Docker writes it.

    :param what: where it stands; errors never show the text itself.
    :raises InvalidCredentials: when it is something else.
    """
    try:
        decoded = base64.b64decode(text.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidCredentials(f"{what} is not base64 of user:password") from None
    username, colon, password = decoded.partition(":")
    if not colon or not username:
        raise InvalidCredentials(f"{what} is not base64 of user:password")
    return username, password.strip("\x00")


def server_of(address: str) -> str:
    """The `host[:port]` of an address, which may be a URL (`https://index.docker.io/v1/`).

    :raises InvalidCredentials: when it is neither.
    """
    if not address:
        return ""
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
    except ValueError as error:
        raise InvalidCredentials(f"AuthConfig.server_address: {error}") from None
    return parts.netloc.rpartition("@")[2].lower()


def same_server(one: str, other: str) -> bool:
    """Whether two `host[:port]` are the same registry; Docker Hub has several names."""
    one, other = one.lower(), other.lower()
    if one in DOCKER_HUB:
        return other in DOCKER_HUB
    return one.removesuffix(":443") == other.removesuffix(":443")
