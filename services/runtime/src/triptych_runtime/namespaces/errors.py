"""Errors of pod namespaces."""

from __future__ import annotations

from triptych_errors import FailedPrecondition, Internal, InvalidArgument


class SysctlRefused(InvalidArgument):
    """A sysctl that is not of a namespace the pod owns, does not exist, or has a bad value."""


class MappingInvalid(InvalidArgument):
    """ID mappings that the kernel would refuse."""


class HostnameInvalid(InvalidArgument):
    """A hostname that the kernel would refuse."""


class DnsInvalid(InvalidArgument):
    """A DNS setting that would break resolv.conf."""


class NamespacesUnsupported(FailedPrecondition):
    """The kernel lacks, or is configured to refuse, a kind of namespace."""


class NamespaceFailed(Internal):
    """A namespace could not be made, pinned or set up."""


class InitFailed(Internal):
    """The init of a shared PID namespace did not start."""


__all__ = [
    "DnsInvalid",
    "HostnameInvalid",
    "InitFailed",
    "MappingInvalid",
    "NamespaceFailed",
    "NamespacesUnsupported",
    "SysctlRefused",
]
