"""The events of NRI, and the methods that carry them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from google.protobuf.message import Message
from nri.v1alpha1 import nri_pb2 as nri

Event: TypeAlias = "nri.Event.ValueType"

SERVICE = "nri.pkg.api.v1alpha1.Plugin"
RUNTIME_SERVICE = "nri.pkg.api.v1alpha1.Runtime"
ALL = (1 << (nri.LAST - 1)) - 1
"""Bit N-1 stands for event N."""


@dataclass(frozen=True, slots=True)
class Method:
    """How plugins are told of an event.

    :param as_change: plugins older than NRI 0.12 know of it by StateChange.
    """

    name: str
    response: type[Message]
    as_change: bool = True


METHODS: dict[Event, Method] = {
    nri.RUN_POD_SANDBOX: Method("RunPodSandbox", nri.RunPodSandboxResponse),
    nri.STOP_POD_SANDBOX: Method("StopPodSandbox", nri.StopPodSandboxResponse),
    nri.REMOVE_POD_SANDBOX: Method("RemovePodSandbox", nri.RemovePodSandboxResponse),
    nri.CREATE_CONTAINER: Method("CreateContainer", nri.CreateContainerResponse, as_change=False),
    nri.POST_CREATE_CONTAINER: Method("PostCreateContainer", nri.PostCreateContainerResponse),
    nri.START_CONTAINER: Method("StartContainer", nri.StartContainerResponse),
    nri.POST_START_CONTAINER: Method("PostStartContainer", nri.PostStartContainerResponse),
    nri.UPDATE_CONTAINER: Method("UpdateContainer", nri.UpdateContainerResponse, as_change=False),
    nri.POST_UPDATE_CONTAINER: Method("PostUpdateContainer", nri.PostUpdateContainerResponse),
    nri.STOP_CONTAINER: Method("StopContainer", nri.StopContainerResponse, as_change=False),
    nri.REMOVE_CONTAINER: Method("RemoveContainer", nri.RemoveContainerResponse),
    nri.UPDATE_POD_SANDBOX: Method("UpdatePodSandbox", nri.UpdatePodSandboxResponse, as_change=False),
    nri.POST_UPDATE_POD_SANDBOX: Method("PostUpdatePodSandbox", nri.PostUpdatePodSandboxResponse),
    nri.VALIDATE_CONTAINER_ADJUSTMENT: Method(
        "ValidateContainerAdjustment", nri.ValidateContainerAdjustmentResponse, as_change=False
    ),
}
