"""What can go wrong with the virtual machine."""

from __future__ import annotations

from triptych_errors import FailedPrecondition, Internal


class MachineUnavailable(FailedPrecondition):
    """This host cannot build or run the machine: a program is missing, or it is not root."""


class MachineFailed(Internal):
    """The machine was built or ran wrongly; names the step and the log."""
