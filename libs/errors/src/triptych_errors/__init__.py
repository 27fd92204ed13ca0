"""The error tree of triptych.

Every error that may reach a caller is one of these; each class stands for one gRPC status code
(https://grpc.io/docs/guides/status-codes/). Nothing here imports gRPC, so that helpers which must
start fast can use it; `triptych_service` maps the tree to gRPC at the one edge.

A message names the step and the thing ("start container 3f2a: crun create: ..."), a hint tells a
person what to do about it.
"""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """gRPC status codes by their wire numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class TriptychError(Exception):
    """Base of all errors that a caller may see.

    :param message: what failed, naming the step and the thing.
    :param hint: what a person can do about it; shown by the tools and appended to the gRPC message.
    """

    code: Code = Code.UNKNOWN

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class Cancelled(TriptychError):
    code = Code.CANCELLED


class Unknown(TriptychError):
    code = Code.UNKNOWN


class InvalidArgument(TriptychError):
    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(TriptychError):
    code = Code.DEADLINE_EXCEEDED


class NotFound(TriptychError):
    code = Code.NOT_FOUND


class AlreadyExists(TriptychError):
    code = Code.ALREADY_EXISTS


class PermissionDenied(TriptychError):
    code = Code.PERMISSION_DENIED


class ResourceExhausted(TriptychError):
    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(TriptychError):
    code = Code.FAILED_PRECONDITION


class Aborted(TriptychError):
    code = Code.ABORTED


class OutOfRange(TriptychError):
    code = Code.OUT_OF_RANGE


class Unimplemented(TriptychError):
    code = Code.UNIMPLEMENTED


class Internal(TriptychError):
    code = Code.INTERNAL


class Unavailable(TriptychError):
    code = Code.UNAVAILABLE


class DataLoss(TriptychError):
    code = Code.DATA_LOSS


class Unauthenticated(TriptychError):
    code = Code.UNAUTHENTICATED


__all__ = [
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "Code",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "TriptychError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
]
