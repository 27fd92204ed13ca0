"""What can go wrong with control groups."""

from __future__ import annotations

from triptych_errors import FailedPrecondition, Internal, InvalidArgument


class BadParent(InvalidArgument):
    """A cgroup parent has the wrong form for the cgroup driver in use."""


class BadResources(InvalidArgument):
    """A resource value that no kernel can take; names the field."""


class MissingController(FailedPrecondition):
    """A resource that this node's kernel or cgroup layout cannot limit; names the field."""


class NoCgroups(FailedPrecondition):
    """No cgroup hierarchy is mounted, or a needed controller is missing."""


class CgroupFailed(Internal):
    """The kernel or systemd refused an operation on a cgroup; names the cgroup and the file."""
