"""What goes wrong between the daemon and a registry.

Messages that the kubelet is to recognise begin with its own reason (k8s.io/cri-api/pkg/errors).
"""

from __future__ import annotations

from triptych_errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Unknown,
)

REASON_UNAVAILABLE = "RegistryUnavailable"


class RegistryUnavailable(Unavailable):
    """No host of the registry can be reached, or each fails or is too slow."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"{REASON_UNAVAILABLE}: {message}", hint=hint)


class ContentNotFound(NotFound):
    """No host has the manifest or blob."""


class AccessDenied(Unknown):
    """The registry wants other credentials, or these may not read the repository.

    UNKNOWN and the words "pull access denied" are what containerd answers here.
    """


class UnexpectedResponse(Unknown):
    """A registry answered what the distribution specification does not allow for."""


class ContentMismatch(FailedPrecondition):
    """Every host served bytes of another digest or size than asked for."""


class ContentTooLarge(ResourceExhausted):
    """A manifest, config or other document above the configured limit."""


class NoProgress(DeadlineExceeded):
    """No byte arrived for the configured time, from any host."""


class SinkClosed(Cancelled):
    """The reader of the file descriptor that a blob is copied to went away; it knows why."""


class InvalidHostsConfig(FailedPrecondition):
    """A `hosts.toml` or a certificate beside it that cannot be used; the message names the file."""


class InvalidCredentials(InvalidArgument):
    """An AuthConfig, auth file or credential helper's answer that cannot be understood."""
