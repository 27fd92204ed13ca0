"""Getting in: basic authentication and the bearer token flow.

https://distribution.github.io/distribution/spec/auth/token/ and .../oauth/
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

from triptych_image.registry.challenge import Challenge, parse_challenges
from triptych_image.registry.credentials import Credentials
from triptych_image.registry.failures import AttemptFailed, Failure
from triptych_image.registry.hosts import Host
from triptych_image.registry.http import HttpClient, Link, Origin, Request, Response
from triptych_image.registry.http.origin import BadUrl
from triptych_image.registry.keyring import Keyring
from triptych_image.registry.replies import failure_of

_CLIENT_ID: Final = "triptych"
_MAX_REMEMBERED: Final = 256
_MAX_ANSWER: Final = 256 << 10
_DEFAULT_LIFE: Final = 60.0
_EARLY: Final = 10.0
_MAX_LIFE: Final = 86400.0
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


class _Answer(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


@dataclass(slots=True)
class _Token:
    value: str
    until: float


@dataclass(slots=True)
class _State:
    """What is known about one host.

    :ivar asked: whether the host gave its challenge in this pull, so that it is not of an earlier one.
    :ivar header: what to send at once, for schemes without scope.
    :ivar scopes: what the host asked for in place of the scope that the specification has.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    challenge: Challenge | None = None
    asked: bool = False
    header: str = ""
    tokens: dict[str, _Token] = field(default_factory=dict)
    scopes: dict[str, str] = field(default_factory=dict)


class Authorizer:
    """Answers challenges for one repository; tokens live as long as it does.

    :param remembered: bearer challenges by host, shared by all pulls so that the next one may save a
        round trip; holds no secrets.
    """

    def __init__(self, http: HttpClient, keyring: Keyring, remembered: dict[str, Challenge]) -> None:
        self._http = http
        self._keyring = keyring
        self._remembered = remembered
        self._states: dict[str, _State] = {}

    async def header(self, host: Host, scope: str) -> str:
        """What to send before being asked: a token in hand, or one that the last pull's challenge gives.

        :raises AttemptFailed: DENIED, or how the token server failed that this pull was sent to.
        """
        state = self._states.get(host.base)
        if state is None:
            challenge = self._remembered.get(host.base)
            if challenge is None or host.base != f"{host.link.origin}/v2":
                # Below a path of its own a host may want scopes that only its challenge tells.
                return ""
            state = self._states.setdefault(host.base, _State(challenge=challenge))
        if state.header or state.challenge is None:
            return state.header
        async with state.lock:
            if state.header or state.challenge is None:
                return state.header
            try:
                return await self._bearer(host, state, state.scopes.get(scope, scope))
            except AttemptFailed as failure:
                if state.asked:
                    raise
                # The registry may send elsewhere by now, or let everybody in.
                self._remembered.pop(host.base, None)
                if failure.kind is Failure.DENIED:
                    raise  # a wrong password is shown once; the next pull asks the registry first
                state.challenge = None
                return ""

    async def answer(self, host: Host, response: Response, scope: str, refused: str) -> str:
        """Answer a 401.

        :param refused: the header that was sent and not accepted, or "".
        :returns: the header to try next.
        :raises AttemptFailed: DENIED when there is no way in, or how the token server failed.
        """
        challenges = parse_challenges(response.head.all(b"www-authenticate"))
        # As peers: a token may be had without credentials, whatever else is offered before it.
        challenges.sort(key=lambda one: one.scheme != "bearer")
        state = self._states.setdefault(host.base, _State())
        async with state.lock:
            for challenge in challenges:
                if challenge.scheme == "bearer" and challenge.parameters.get("realm"):
                    self._refuse(state, refused)
                    state.challenge, state.asked = challenge, True
                    self._remember(host, challenge)
                    state.scopes[scope] = challenge.parameters.get("scope") or scope
                    return await self._bearer(host, state, state.scopes[scope])
                if challenge.scheme == "basic":
                    return await self._basic(host, state, refused)
        raise self._denied(host, "it offers no way to authenticate that is supported")

    def _remember(self, host: Host, challenge: Challenge) -> None:
        self._remembered.pop(host.base, None)
        while len(self._remembered) >= _MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        self._remembered[host.base] = challenge

    def _refuse(self, state: _State, refused: str) -> None:
        state.header = "" if state.header == refused else state.header
        state.tokens = {
            scope: token for scope, token in state.tokens.items() if f"Bearer {token.value}" != refused
        }

    async def _basic(self, host: Host, state: _State, refused: str) -> str:
        self._remembered.pop(host.base, None)
        if state.header and state.header != refused:
            return state.header
        credentials = await self._keyring.find(host)
        if credentials is None or not credentials.username:
            raise self._denied(host, "no basic auth credentials")
        header = _basic_header(credentials)
        if header == refused:
            raise self._denied(host, "the credentials are not accepted")
        state.challenge, state.header = None, header
        return header

    async def _bearer(self, host: Host, state: _State, scope: str) -> str:
        token = state.tokens.get(scope)
        if token is None or token.until <= time.monotonic():
            credentials = await self._keyring.find(host)
            if credentials is not None and credentials.registry_token:
                # A token given as it is; asking for another one is not in our hands.
                state.header = f"Bearer {_checked(credentials.registry_token, host.name)}"
                return state.header
            token = await self._fetch(host, state, scope, credentials)
            state.tokens[scope] = token
        return f"Bearer {token.value}"

    async def _fetch(self, host: Host, state: _State, scope: str, credentials: Credentials | None) -> _Token:
        assert state.challenge is not None
        parameters = state.challenge.parameters
        realm, service = parameters["realm"], parameters.get("service", "")
        link = self._link(host, realm, credentials)
        if credentials is not None and credentials.identity_token:
            request = _oauth(realm, service, scope, credentials.identity_token)
        else:
            request = _get(realm, service, scope, credentials)
        response = await self._http.send(link, request)
        async with response:
            if response.status != 200:
                raise await failure_of(response, f"token for {scope or service}")
            data = await self._read(response)
        return _parse(data, link.origin.authority)

    async def _read(self, response: Response) -> bytes:
        """The answer, which is short; everybody who needs a token of this host waits for it."""
        seconds = self._http.settings.response_seconds
        try:
            async with asyncio.timeout(seconds):
                return await response.read(_MAX_ANSWER, "token")
        except TimeoutError:
            reason = f"token answer not whole within {seconds:g} s"
            raise AttemptFailed(Failure.SLOW, response.host, reason) from None

    def _link(self, host: Host, realm: str, credentials: Credentials | None) -> Link:
        """How to reach the token server; secrets never leave TLS because a registry says so."""
        try:
            origin, _ = Origin.parse(realm)
        except BadUrl as error:
            raise AttemptFailed(Failure.PROTOCOL, host.name, f"token realm: {error}") from None
        if origin == host.link.origin:
            return host.link
        secure = host.link.origin.scheme == "https" and not host.link.fallback
        if credentials and secure and origin.scheme != "https" and not origin.is_loopback:
            raise AttemptFailed(
                Failure.DENIED, host.name, f"it wants the credentials sent to {origin} without TLS"
            )
        same = origin.host == host.link.origin.host
        fallback = host.link.fallback and same
        return Link(origin, host.link.tls.without_client(), (), host.link.dial_seconds, fallback)

    def _denied(self, host: Host, reason: str) -> AttemptFailed:
        return AttemptFailed(Failure.DENIED, host.name, f"authorization failed: {reason}", status=401)


def _basic_header(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _get(realm: str, service: str, scope: str, credentials: Credentials | None) -> Request:
    parts = urlsplit(realm)
    query = parse_qsl(parts.query, keep_blank_values=True)
    query += [("service", service)] if service else []
    query += [("scope", one) for one in scope.split(" ") if one]
    url = urlunsplit(parts._replace(query=urlencode(query)))
    authorization = ""
    if credentials is not None and credentials.username:
        url = urlunsplit(parts._replace(query=urlencode([*query, ("account", credentials.username)])))
        authorization = _basic_header(credentials)
    return Request("GET", url, authorization=authorization, keep_tls=True)


def _oauth(realm: str, service: str, scope: str, refresh_token: str) -> Request:
    form = {
        "grant_type": "refresh_token",
        "service": service,
        "client_id": _CLIENT_ID,
        "scope": scope,
        "refresh_token": refresh_token,
    }
    data = urlencode(form).encode()
    headers = (
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Content-Length", str(len(data))),
    )
    return Request("POST", realm, headers, body=_once(data), keep_tls=True)


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _parse(data: bytes, host: str) -> _Token:
    try:
        answer = msgspec.json.decode(data, type=_Answer)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        # The text may hold a token, so only the kind of error is told.
        raise AttemptFailed(Failure.PROTOCOL, host, f"token answer: {_kind(error)}") from None
    value = answer.token or answer.access_token
    if not value:
        raise AttemptFailed(Failure.PROTOCOL, host, "token answer has no token")
    life = _DEFAULT_LIFE if answer.expires_in is None else min(max(answer.expires_in, 0.0), _MAX_LIFE)
    # A little early, so that it does not run out on the way; never so early that it is useless.
    return _Token(_checked(value, host), time.monotonic() + max(life - _EARLY, life / 2))


def _kind(error: Exception) -> str:
    return "wrong shape" if isinstance(error, msgspec.ValidationError) else "no JSON"


def _checked(token: str, host: str) -> str:
    if _TOKEN.fullmatch(token) is None:
        raise AttemptFailed(Failure.PROTOCOL, host, "token holds characters that no header can carry")
    return token
