"""What ./dev tells a person when it cannot go on."""

from __future__ import annotations

from triptych_errors import FailedPrecondition, Internal


class DevError(FailedPrecondition):
    """Something that a command needs is not there."""


class StepFailed(Internal):
    """A step of a command did not do what it should."""
