"""Errors of running processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triptych_errors import DeadlineExceeded, FailedPrecondition, Internal

if TYPE_CHECKING:
    from triptych_linux.process import Completed


class ProcessFailed(Internal):
    """A process ended with a status other than 0. `completed` has its output."""

    def __init__(self, step: str, completed: Completed) -> None:
        output = (completed.stderr or completed.stdout).decode(errors="replace").strip()
        super().__init__(f"{step}: {completed.how}" + (f": {output[-2000:]}" if output else ""))
        self.step = step
        self.completed = completed


class ProcessTimeout(DeadlineExceeded):
    """A process outlived its deadline and was killed with its process group."""

    def __init__(self, step: str, seconds: float) -> None:
        super().__init__(f"{step}: no end after {seconds:g} s, killed")
        self.step = step
        self.seconds = seconds


class ProgramMissing(FailedPrecondition):
    """The program to run is not there or cannot be executed."""

    def __init__(self, step: str, program: str, reason: str) -> None:
        super().__init__(f"{step}: cannot run {program}: {reason}")
        self.step = step
        self.program = program
