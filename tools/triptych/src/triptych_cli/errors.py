"""What the command tells a person when something does not work."""

from __future__ import annotations

from triptych_errors import Code, TriptychError


class CliError(TriptychError):
    """Ends the command; the hint is shown on a line of its own."""


class WrongInput(CliError):
    """What a person gave cannot be used."""

    code = Code.INVALID_ARGUMENT


class CallFailed(CliError):
    """A daemon answered with an error.

    :param code: as the daemon gave it.
    """

    def __init__(self, message: str, code: Code, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class DaemonDown(CliError):
    """Nobody serves the socket."""
