"""How a worker ends a job; told to the daemon as one word and a sentence."""

from __future__ import annotations

import errno

MALFORMED = "malformed"
"""The archive breaks the format, or asks for something that no layer may do."""
LIMIT = "limit"
"""The archive is larger than what the settings allow."""
DISK = "disk"
"""The file system is full, or over quota."""
SYSTEM = "system"
"""The kernel refused something that should have worked."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
# What hostile names lead to: the archive's fault and not the machine's.
_NAMES = (
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EINVAL,
    errno.EISDIR,
    errno.ENOENT,
    errno.EEXIST,
    errno.EPERM,
    errno.EMLINK,
    errno.ENXIO,
)


class Refused(Exception):
    """Ends the job.

    :param kind: one of the words of this module.
    :param message: for people; names the entry.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def malformed(message: str) -> Refused:
    """The archive's fault."""
    return Refused(MALFORMED, message)


def limit(message: str) -> Refused:
    """Larger than allowed."""
    return Refused(LIMIT, message)


def refused_by_kernel(error: OSError, what: str) -> Refused:
    """What an `OSError` of an entry means."""
    kind = DISK if error.errno in _FULL else MALFORMED if error.errno in _NAMES else SYSTEM
    return Refused(kind, f"{what}: {error.strerror or error}")


def show(name: bytes) -> str:
    """A file name for a message, of bounded length."""
    return repr(name if len(name) <= 200 else name[:200] + b"...")[1:]
