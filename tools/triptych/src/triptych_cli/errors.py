"""What the command tells a person when something does not work."""

from __future__ import annotations

from triptych_errors import TriptychError


class CliError(TriptychError):
    """Ends the command with status 1; the hint is shown on a line of its own."""


class CallFailed(CliError):
    """A daemon answered with an error.

    :param status: name of the gRPC status ("NOT_FOUND").
    """

    def __init__(self, message: str, status: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class DaemonDown(CliError):
    """Nobody serves the socket."""
