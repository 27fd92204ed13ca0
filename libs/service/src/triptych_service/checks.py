"""What a daemon refuses in settings that are well typed: before it starts, on a reload, and when asked."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TypeVar

from triptych_service import logs, sockets, telemetry
from triptych_service.config import Loaded
from triptych_service.daemon import Definition, Problem
from triptych_service.errors import ConfigError
from triptych_service.reference import origin
from triptych_service.settings import LogFormat, ServiceSettings

S = TypeVar("S", bound=ServiceSettings)


def check(definition: Definition[S], loaded: Loaded[S]) -> None:
    """Look at everything that needs neither a socket nor the daemon's own state; blocks on files.

    :raises ConfigError: telling all problems at once, each with its file.
    """
    found = [*_common(loaded.settings), *definition.check(loaded.settings)]
    if found:
        raise ConfigError(
            [f"{p.source or origin(p.key, loaded.origins)}: `{p.key}`: {p.text}" for p in found]
        )


def _common(settings: ServiceSettings) -> Iterator[Problem]:
    if len(os.fsencode(settings.socket)) > sockets.LONGEST_PATH:
        yield Problem("socket", f"expected a path of {sockets.LONGEST_PATH} bytes at most")
    if settings.log.format is LogFormat.JOURNALD:
        problem = logs.journal_problem()
        if problem:
            yield Problem("log.format", f"expected a journal: {problem}")
    yield from _collector(settings.telemetry.endpoint)
    yield from _metrics(settings)


def _collector(endpoint: str) -> Iterator[Problem]:
    if not endpoint:
        return
    from urllib.parse import urlsplit

    try:
        urlsplit(endpoint)
    except ValueError as error:
        yield Problem("telemetry.endpoint", f"expected a URL such as `http://127.0.0.1:4317`: {error}")


def _metrics(settings: ServiceSettings) -> Iterator[Problem]:
    address = telemetry.metrics_address(settings)
    if not address:
        return
    from triptych_service import endpoint

    try:
        endpoint.parse(address)
    except ValueError as error:
        own = address == settings.metrics.address
        yield Problem("metrics.address", str(error), source="" if own else telemetry.METRICS_ADDRESS)
