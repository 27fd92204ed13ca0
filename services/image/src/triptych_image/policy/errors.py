"""Why an image may not be pulled."""

from __future__ import annotations

from triptych_errors import FailedPrecondition, PermissionDenied

REASON_SIGNATURE = "SignatureValidationFailed"


class SignatureRejected(PermissionDenied):
    """The policy does not accept the image; the kubelet shows the reason that begins the message."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"{REASON_SIGNATURE}: {message}", hint=hint)


class InvalidPolicy(FailedPrecondition):
    """A policy file that is missing, malformed or asks for what is not supported; nothing is pulled."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(f"{REASON_SIGNATURE}: {message}", hint=hint)
