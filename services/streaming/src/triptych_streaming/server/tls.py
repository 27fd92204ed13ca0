"""The TLS context of the HTTP server."""

from __future__ import annotations

import os
import ssl

from triptych_streaming.errors import TlsUnusable
from triptych_streaming.settings import TlsSettings, TlsVersion


def stamp(settings: TlsSettings) -> tuple[tuple[int, int] | None, ...]:
    """Identity and time of the files, to see when they are replaced."""
    found: list[tuple[int, int] | None] = []
    for path in (settings.certificate, settings.key, settings.client_ca):
        try:
            status = os.stat(path)
            found.append((status.st_ino, status.st_mtime_ns))
        except OSError:
            found.append(None)
    return tuple(found)


def make_context(settings: TlsSettings) -> ssl.SSLContext | None:
    """A context from the files as they are now; None when TLS is off. Blocks on reading them.

    :raises TlsUnusable: a file is missing or unfit, or a key is named without its certificate.
    """
    if not settings.certificate:
        if settings.key or settings.client_ca:
            key = "tls.key" if settings.key else "tls.client_ca"
            raise TlsUnusable(key, "expected tls.certificate beside it, which is not set")
        return None
    for key, path in (
        ("tls.certificate", settings.certificate),
        ("tls.key", settings.key),
        ("tls.client_ca", settings.client_ca),
    ):
        _need(key, path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = (
        ssl.TLSVersion.TLSv1_3 if settings.minimum is TlsVersion.V1_3 else ssl.TLSVersion.TLSv1_2
    )
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.certificate, settings.key or None)
    except (OSError, ssl.SSLError) as error:
        files = " and ".join(filter(None, (settings.certificate, settings.key)))
        text = f"expected a certificate and its key in PEM, got {files}: {error}"
        raise TlsUnusable("tls.certificate", text) from error
    if settings.client_ca:
        try:
            context.load_verify_locations(settings.client_ca)
        except (OSError, ssl.SSLError) as error:
            text = f"expected certificates in PEM, got {settings.client_ca}: {error}"
            raise TlsUnusable("tls.client_ca", text) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _need(key: str, path: str) -> None:
    """OpenSSL does not say which of its files could not be read."""
    if path:
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except OSError as error:
            raise TlsUnusable(key, f"expected a PEM file, got {path}: {error.strerror}") from error
