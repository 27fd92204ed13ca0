"""Docker's `config.json` and Podman's `auth.json`, and the credential helpers that they name."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from triptych_linux import process
from triptych_linux.errors import ProcessFailed, ProcessTimeout, ProgramMissing

from triptych_image.registry.credentials import DOCKER_HUB, Credentials, decode_auth
from triptych_image.registry.errors import InvalidCredentials

log = logging.getLogger(__name__)

_MAX_FILE: Final = 1 << 20
_HELPER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HUB_KEY: Final = "https://index.docker.io/v1/"
_TOKEN_USER: Final = "<token>"


class _Entry(msgspec.Struct):
    """As Go programs read it, so that what is null is not there."""

    auth: str | None = None
    username: str | None = None
    password: str | None = None
    identitytoken: str | None = None
    registrytoken: str | None = None


class _File(msgspec.Struct, rename="camel"):
    auths: dict[str, _Entry | None] | None = None
    cred_helpers: dict[str, str | None] | None = None
    creds_store: str | None = None


class _Answer(msgspec.Struct, rename="pascal"):
    username: str
    secret: str


async def find(file: Path, server: str, repository: str, helper_seconds: float) -> Credentials | None:
    """What a file has for a repository: by helper, by the longest matching key, by the default store.

    A file that is not there has nothing; one that is malformed is logged and has nothing.

    :param server: `host[:port]`; any of Docker Hub's names for Docker Hub.
    """
    document = _load(file)
    if document is None:
        return None
    names = sorted(DOCKER_HUB) if server in DOCKER_HUB else [server]
    helpers = document.cred_helpers or {}
    for name in [*names, _HUB_KEY] if server in DOCKER_HUB else names:
        helper = helpers.get(name)
        if helper and (found := await _ask(helper, file, server, helper_seconds)):
            return found
    entries = {_normalized(key): entry for key, entry in (document.auths or {}).items() if entry is not None}
    for key in _keys(names, repository):
        if key in entries and (found := _credentials(entries[key], f"{file}: auths[{key!r}].auth")):
            return found
    if document.creds_store:
        return await _ask(document.creds_store, file, server, helper_seconds)
    return None


def _load(file: Path) -> _File | None:
    try:
        with file.open("rb") as stream:
            text = stream.read(_MAX_FILE + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        log.warning("auth file is unreadable", extra={"file": str(file), "reason": error.strerror})
        return None
    try:
        if len(text) > _MAX_FILE:
            raise msgspec.DecodeError("too large")
        return msgspec.json.decode(text, type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        log.warning("auth file is malformed", extra={"file": str(file), "reason": str(error)})
        return None


def _normalized(key: str) -> str:
    """Keys are `host[:port][/path]`; Docker also writes URLs with an API version."""
    bare = key.partition("://")[2] if "://" in key else key
    host, slash, path = bare.rstrip("/").partition("/")
    if "://" in key and path in ("v1", "v2"):
        slash = path = ""
    return f"{host.lower()}{slash}{path}"


def _keys(names: list[str], repository: str) -> Iterator[str]:
    """Candidate keys, the most specific first."""
    parts = repository.split("/")
    for length in range(len(parts), -1, -1):
        for name in names:
            yield "/".join([name, *parts[:length]])


def _credentials(entry: _Entry, what: str) -> Credentials | None:
    if entry.identitytoken:
        return Credentials(identity_token=entry.identitytoken)
    if entry.auth:
        try:
            username, password = decode_auth(entry.auth, what)
        except InvalidCredentials as error:
            log.warning("auth entry is malformed", extra={"reason": error.message})
            return None
        return Credentials(username=username, password=password)
    if entry.username:
        return Credentials(username=entry.username, password=entry.password or "")
    return Credentials(registry_token=entry.registrytoken) if entry.registrytoken else None


async def _ask(helper: str, file: Path, server: str, seconds: float) -> Credentials | None:
    """Ask `docker-credential-<helper> get`; a helper that has nothing or fails is logged, never fatal."""
    if _HELPER.fullmatch(helper) is None:
        log.warning("credential helper has no valid name", extra={"file": str(file)})
        return None
    key = _HUB_KEY if server in DOCKER_HUB else server
    program = f"docker-credential-{helper}"
    try:
        done = await process.run([program, "get"], deadline=seconds, step=program, stdin=key.encode())
        answer = msgspec.json.decode(done.stdout, type=_Answer)
    except ProcessFailed as error:
        # The protocol tells "not there" by the exit status alone; the text on stdout is for people.
        log.info("credential helper has nothing", extra={"helper": program, "how": error.completed.how})
        return None
    except (ProcessTimeout, ProgramMissing) as error:
        log.warning("credential helper failed", extra={"helper": program, "reason": error.message})
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        log.warning("credential helper's answer is malformed", extra={"helper": program})
        return None
    if answer.username == _TOKEN_USER:
        return Credentials(identity_token=answer.secret)
    return Credentials(username=answer.username, password=answer.secret) if answer.username else None
