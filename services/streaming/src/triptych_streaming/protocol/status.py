"""How a session ended, and how each protocol version tells the client."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from triptych_streaming.protocol.channels import Version


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a session.

    :param exit_code: of the process; 128 + N when signal N ended it; None for attach and failures.
    :param failure: why there is no exit code; empty for success.
    """

    exit_code: int | None = None
    failure: str = ""

    @property
    def success(self) -> bool:
        return not self.failure and not self.exit_code


def status_message(outcome: Outcome, version: Version) -> bytes:
    """The whole content of the error stream; empty when the version says nothing of success."""
    if version.json_status:
        return msgspec.json.encode(status_document(outcome))
    if outcome.failure:
        return _internal(outcome.failure).encode()
    if outcome.exit_code:
        return _non_zero(outcome.exit_code).encode()
    return b""


def status_document(outcome: Outcome) -> dict[str, object]:
    """The metav1.Status that version 4 sends; clients parse the exit code as an unsigned byte."""
    if outcome.failure:
        return {
            "metadata": {},
            "status": "Failure",
            "message": _internal(outcome.failure),
            "reason": "InternalError",
            "details": {"causes": [{"message": outcome.failure}]},
            "code": 500,
        }
    if outcome.exit_code:
        return {
            "metadata": {},
            "status": "Failure",
            "message": _non_zero(outcome.exit_code),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": str(outcome.exit_code)}]},
        }
    return {"metadata": {}, "status": "Success"}


def _internal(failure: str) -> str:
    return f"Internal error occurred: {failure}"


def _non_zero(code: int) -> str:
    return f"command terminated with non-zero exit code: exit status {code}"
