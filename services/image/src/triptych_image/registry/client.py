"""The registry client: what the rest of the image daemon calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from triptych_oci import Reference

from triptych_image.registry.access import Shared
from triptych_image.registry.credentials import Credentials
from triptych_image.registry.http import HttpClient
from triptych_image.registry.manifests import Stored
from triptych_image.registry.repository import Repository
from triptych_image.registry.settings import RegistrySettings


class RegistryClient:
    """Connections, host health and settings that all pulls of the daemon share."""

    def __init__(self, settings: RegistrySettings) -> None:
        self._shared = Shared(settings, HttpClient(settings), _permits(settings))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def reconfigure(self, settings: RegistrySettings) -> None:
        """Take changed settings; pulls that run keep the old ones."""
        self._shared.settings = settings
        self._shared.http.reconfigure(settings)
        self._shared.chunk_memory = _permits(settings)

    def close(self) -> None:
        """Close the kept connections."""
        self._shared.http.close()

    @asynccontextmanager
    async def repository(
        self,
        reference: Reference,
        credentials: Credentials | None = None,
        *,
        stored: Stored | None = None,
    ) -> AsyncIterator[Repository]:
        """The repository of a reference.

        :param credentials: of the request; go to the reference's own registry only, or to `server_address`.
            Other hosts (mirrors) get what auth files and `hosts.toml` headers have for them.
        :param stored: gives the bytes of manifests and configs that are here already, or None. With it a
            HEAD asks for the digest first, and a GET (which registries count as a pull) follows only for
            what is not here.
        :raises InvalidHostsConfig: naming the file.
        """
        yield Repository(self._shared, reference, credentials, stored)


def _permits(settings: RegistrySettings) -> asyncio.Semaphore:
    return asyncio.Semaphore(max(1, settings.chunk_memory_bytes // settings.chunk_bytes))
