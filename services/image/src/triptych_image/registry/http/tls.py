"""TLS contexts, built once per set of certificate files."""

from __future__ import annotations

import asyncio
import os
import ssl
from dataclasses import dataclass, replace
from typing import Final

from triptych_image.registry.errors import InvalidHostsConfig

_MAX_CONTEXTS: Final = 64


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """What to trust and what to show.

    :param ca: PEM files trusted beside the system's.
    :param pairs: client certificates, each with its key file or "" when the key is in the same file.
    """

    ca: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()
    skip_verify: bool = False

    def without_client(self) -> TlsConfig:
        """The same without client certificates, for hosts that a redirect leads to."""
        return replace(self, pairs=()) if self.pairs else self


DEFAULT_TLS: Final = TlsConfig()
_Stamp = tuple[tuple[str, int, int, int], ...]


class TlsContexts:
    """Caches contexts; a changed file makes a new one."""

    def __init__(self) -> None:
        self._contexts: dict[tuple[TlsConfig, _Stamp], ssl.SSLContext] = {}

    async def get(self, config: TlsConfig) -> ssl.SSLContext:
        """The context for a configuration.

        :raises InvalidHostsConfig: naming the file that cannot be used.
        """
        key = (config, _stamp(config))
        context = self._contexts.get(key)
        if context is None:
            context = await asyncio.to_thread(_build, config)
            while len(self._contexts) >= _MAX_CONTEXTS:
                del self._contexts[next(iter(self._contexts))]
            self._contexts[key] = context
        return context


def _stamp(config: TlsConfig) -> _Stamp:
    files = [*config.ca, *(name for pair in config.pairs for name in pair if name)]
    return tuple(_identity(name) for name in files)


def _identity(name: str) -> tuple[str, int, int, int]:
    try:
        status = os.stat(name)
    except OSError as error:
        raise InvalidHostsConfig(f"certificate file {name}: {error.strerror}") from None
    return name, status.st_ino, status.st_size, status.st_mtime_ns


def _build(config: TlsConfig) -> ssl.SSLContext:
    if config.skip_verify:
        # The system's authorities take 30 ms and megabytes to load.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    else:
        context = ssl.create_default_context()
    # Python 3.13 refuses certificates without an Authority Key Identifier. Private CAs of registries make
    # such, and containerd and CRI-O take them.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    for name in config.ca:
        try:
            context.load_verify_locations(cafile=name)
        except (OSError, ssl.SSLError) as error:
            raise InvalidHostsConfig(f"CA certificates {name}: {_reason(error)}") from None
    for certificate, key in config.pairs:
        try:
            # An empty answer instead of OpenSSL's own prompt on the terminal for an encrypted key.
            context.load_cert_chain(certificate, key or None, password=b"")
        except (OSError, ssl.SSLError) as error:
            files = f"{certificate}, {key}" if key else certificate
            raise InvalidHostsConfig(f"client certificate {files}: {_reason(error)}") from None
    if config.skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or "not in PEM form"
    return error.strerror or str(error)
