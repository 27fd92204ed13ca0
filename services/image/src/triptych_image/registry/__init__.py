"""Registries: find a name's manifest, fetch blobs, push.

async with RegistryClient(settings.registry) as client:
    async with client.repository(Reference.parse("busybox"), credentials) as repository:
        top = await repository.resolve()
        image = await repository.select(top, PlatformMatcher(host_platform()))
        config = await repository.fetch_blob(image.document.config)
        await repository.copy_blob_to_fd(image.document.layers[0], worker_stdin, progress=count)
"""

from triptych_image.registry.client import RegistryClient
from triptych_image.registry.credentials import Credentials
from triptych_image.registry.errors import (
    AccessDenied,
    ContentMismatch,
    ContentNotFound,
    ContentTooLarge,
    InvalidCredentials,
    InvalidHostsConfig,
    NoProgress,
    RegistryUnavailable,
    SinkClosed,
    UnexpectedResponse,
)
from triptych_image.registry.push import OpenSource
from triptych_image.registry.repository import Repository
from triptych_image.registry.settings import RegistrySettings
from triptych_image.registry.types import BlobStats, Progress, Resolved, Selected

__all__ = [
    "AccessDenied",
    "BlobStats",
    "ContentMismatch",
    "ContentNotFound",
    "ContentTooLarge",
    "Credentials",
    "InvalidCredentials",
    "InvalidHostsConfig",
    "NoProgress",
    "OpenSource",
    "Progress",
    "RegistryClient",
    "RegistrySettings",
    "RegistryUnavailable",
    "Repository",
    "Resolved",
    "Selected",
    "SinkClosed",
    "UnexpectedResponse",
]
