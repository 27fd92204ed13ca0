"""The hosts that serve one repository, and how one call falls over from one to the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from triptych_oci import Descriptor, Digest

from triptych_image.registry.blobs import BlobSource, url_hosts
from triptych_image.registry.challenge import Challenge
from triptych_image.registry.endpoint import Endpoint
from triptych_image.registry.failures import AttemptFailed
from triptych_image.registry.hosts import Host, HostsConfig
from triptych_image.registry.hosts_toml import Capability
from triptych_image.registry.http import HttpClient
from triptych_image.registry.settings import RegistrySettings
from triptych_image.registry.tokens import Authorizer
from triptych_image.registry.walk import HostHealth, Walk

T = TypeVar("T")


@dataclass(slots=True)
class Shared:
    """What all pulls of the daemon share.

    :ivar challenges: bearer challenges by host; no secrets.
    :ivar chunk_memory: permits for ranges that are held in memory.
    """

    settings: RegistrySettings
    http: HttpClient
    chunk_memory: asyncio.Semaphore
    hosts: HostsConfig = field(default_factory=HostsConfig)
    health: HostHealth = field(default_factory=HostHealth)
    challenges: dict[str, Challenge] = field(default_factory=dict)


class Access:
    """The hosts of one repository for the time of one pull or push.

    :param path: the repository within the registry.
    """

    def __init__(self, shared: Shared, hosts: list[Host], authorizer: Authorizer, path: str) -> None:
        self.settings = shared.settings
        self.chunk_memory = shared.chunk_memory
        self._http = shared.http
        self._health = shared.health
        self._hosts = hosts
        self._authorizer = authorizer
        self._path = path
        self._distrusted: dict[Digest, set[str]] = {}
        self._served: dict[Digest, str] = {}

    def having(self, capability: Capability) -> list[Host]:
        """The hosts that are asked for something, in order; a push goes to the first of them alone."""
        hosts = [host for host in self._hosts if capability in host.capabilities]
        return hosts[:1] if capability is Capability.PUSH else hosts

    def endpoint(self, host: Host) -> Endpoint:
        return Endpoint(self._http, self._authorizer, host, self._path)

    def source(self, descriptor: Descriptor, what: str) -> BlobSource:
        """Where a blob may come from: every host that did not serve something else for it."""
        hosts = self._trusted(descriptor)
        return BlobSource(descriptor, hosts, self.endpoint, self.settings, self._health, what)

    def served(self, source: BlobSource) -> None:
        """Note who served a blob, whole or not."""
        if source.host:
            self._served[source.descriptor.digest] = source.host

    def distrust(self, descriptor: Descriptor) -> bool:
        """Leave out who served a blob; returns whether another host is left."""
        distrusted = self._distrusted.setdefault(descriptor.digest, set())
        if served := self._served.get(descriptor.digest):
            distrusted.add(served)
        return bool(self._trusted(descriptor))

    def _trusted(self, descriptor: Descriptor) -> list[Host]:
        distrusted = self._distrusted.get(descriptor.digest, set())
        hosts = [*url_hosts(descriptor), *self.having(Capability.PULL)]
        return [host for host in hosts if host.name not in distrusted]

    async def over_hosts(
        self, capability: Capability, what: str, attempt: Callable[[Endpoint], Awaitable[T]]
    ) -> T:
        """Do something small at the first host where it works.

        An attempt has no limit as a whole: what it waits for has, and bytes that come slowly are welcome.

        :param what: names it in errors.
        :raises TriptychError: when no host is left, saying what each of them said.
        """
        verb = "push" if capability is Capability.PUSH else "pull"
        walk = Walk(self.having(capability), self.settings, self._health, what, verb=verb)
        while True:
            host = await walk.next()
            try:
                result = await attempt(self.endpoint(host))
            except AttemptFailed as failure:
                walk.failed(failure)
            else:
                walk.succeeded()
                return result
