"""What can go wrong while a node is put together."""

from __future__ import annotations

from triptych_errors import FailedPrecondition, Internal


class CommandFailed(Internal):
    """A program that a step needs ended with an error; the message ends with what it printed."""


class NotPossible(FailedPrecondition):
    """The machine or the arguments do not allow the step; the hint says what would."""
