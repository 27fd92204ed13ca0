"""The TLS context of the HTTP server."""

from __future__ import annotations

import os
import ssl

from triptych_streaming.errors import TlsUnusable
from triptych_streaming.settings import TlsSettings


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
            raise TlsUnusable("tls.key and tls.client_ca need tls.certificate")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3 if settings.minimum == "1.3" else ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(settings.certificate, settings.key or None)
    except (OSError, ssl.SSLError) as error:
        files = " and ".join(filter(None, (settings.certificate, settings.key)))
        raise TlsUnusable(f"tls: certificate {files}: {error}") from error
    if settings.client_ca:
        try:
            context.load_verify_locations(settings.client_ca)
        except (OSError, ssl.SSLError) as error:
            raise TlsUnusable(f"tls: client_ca {settings.client_ca}: {error}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context
