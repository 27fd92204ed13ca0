"""Which credentials go to which host."""

from __future__ import annotations

from pathlib import Path

from triptych_oci import Reference

from triptych_image.registry import authfiles
from triptych_image.registry.credentials import Credentials, same_server
from triptych_image.registry.hosts import Host
from triptych_image.registry.settings import RegistrySettings


class Keyring:
    """The credentials of one pull: those of the request, then those of files, each for its own host only."""

    def __init__(self, reference: Reference, given: Credentials | None, settings: RegistrySettings) -> None:
        self._reference = reference
        self._given = given
        self._settings = settings

    async def find(self, host: Host) -> Credentials | None:
        """What may be shown to a host; None to go anonymously."""
        if self._given and self._is_for(self._given, host):
            return self._given
        servers = [self._reference.domain] if host.is_registry else []
        if host.name.lower() not in servers:
            servers.append(host.name.lower())
        for file in filter(None, self._settings.auth_files):
            for server in servers:
                found = await authfiles.find(
                    Path(file), server, self._reference.path, self._settings.credential_helper_seconds
                )
                if found:
                    return found
        return None

    def _is_for(self, given: Credentials, host: Host) -> bool:
        """The request's credentials are for the image's registry unless they name a server themselves."""
        if not given.server:
            return host.is_registry
        if same_server(given.server, host.name):
            return True
        return host.is_registry and same_server(given.server, self._reference.domain)
