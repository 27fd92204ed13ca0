"""Errors of the pod network."""

from __future__ import annotations

from triptych_errors import (
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    Unavailable,
)


class NetworkNotReady(Unavailable):
    """No usable network configuration yet; the message says why."""


class ConfigInvalid(FailedPrecondition):
    """A network configuration file that cannot be used; names the file and the key."""


class AnnotationInvalid(InvalidArgument):
    """An annotation or argument of the pod that the network cannot honour."""


class PodCidrInvalid(InvalidArgument):
    """UpdateRuntimeConfig gave something that is not a list of subnets."""


class PluginMissing(FailedPrecondition):
    """A plugin's program is in none of the plugin directories."""

    def __init__(self, plugin: str, directories: tuple[str, ...]) -> None:
        super().__init__(
            f"CNI plugin {plugin!r} not found in {', '.join(directories)}",
            hint="install the package of CNI plugins or correct network.bin_dirs",
        )
        self.plugin = plugin


class PluginFailed(Internal):
    """A plugin answered with an error.

    :param number: the error code of the specification (section 5, "Error"), 0 when it gave none.
    """

    def __init__(self, step: str, text: str, number: int = 0) -> None:
        super().__init__(f"{step}: {text}" + (f" (CNI error {number})" if number else ""))
        self.number = number


class PluginBusy(Unavailable):
    """A plugin asks to be tried again later (CNI error 11)."""


class PluginTimeout(DeadlineExceeded):
    """A plugin gave no answer before its deadline and was killed."""


class ResultInvalid(Internal):
    """A plugin's answer is not a result of the specification."""


class RecordUnwritable(Internal):
    """What is known of a pod's network could not be written to disk."""


class AttachmentUnknown(NotFound):
    """The pod has no network of ours."""

    def __init__(self, sandbox_id: str) -> None:
        super().__init__(f"pod sandbox {sandbox_id} has no network attachment")


class TeardownFailed(Internal):
    """Some plugin could not undo its work; the attachment is kept and tried again in the background."""

    def __init__(self, sandbox_id: str, reasons: list[str]) -> None:
        super().__init__(f"tear down the network of pod sandbox {sandbox_id}: {'; '.join(reasons)}")
        self.reasons = reasons


__all__ = [
    "AnnotationInvalid",
    "AttachmentUnknown",
    "ConfigInvalid",
    "NetworkNotReady",
    "PluginBusy",
    "PluginFailed",
    "PluginMissing",
    "PluginTimeout",
    "PodCidrInvalid",
    "RecordUnwritable",
    "ResultInvalid",
    "TeardownFailed",
]
