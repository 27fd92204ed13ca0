"""Errors of checkpoint and restore."""

from __future__ import annotations

from triptych_errors import FailedPrecondition, Internal, InvalidArgument


class CheckpointImpossible(FailedPrecondition):
    """This host or the container's runtime cannot checkpoint; says what is missing."""


class CheckpointFailed(Internal):
    """CRIU or the OCI runtime failed; the message has the end of CRIU's log."""


class CheckpointUnreadable(InvalidArgument):
    """What should be restored is no checkpoint that this runtime wrote."""
