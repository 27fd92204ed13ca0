"""Refusing requests that cannot mean anything, before anything is made.

The checks are those of containerd's and CRI-O's CRI plugins plus those that they leave to the OCI runtime;
each message names the field.
"""

from __future__ import annotations

from runtime.v1 import api_pb2
from triptych_runtime.spec.facts import HandlerFeatures, HostFacts


def validate_sandbox(config: api_pb2.PodSandboxConfig, host: HostFacts, handler: HandlerFeatures) -> None:
    """At RunPodSandbox, before anything is made.

    :raises InvalidArgument: naming the field.
    :raises FailedPrecondition: when the host or the handler lacks what it needs.
    """


def validate_container(
    config: api_pb2.ContainerConfig,
    sandbox: api_pb2.PodSandboxConfig,
    host: HostFacts,
    handler: HandlerFeatures,
) -> None:
    """At CreateContainer, before anything is made.

    :raises InvalidArgument: naming the field.
    :raises FailedPrecondition: when the host or the handler lacks what it needs.
    """


def validate_resources(resources: api_pb2.LinuxContainerResources, field: str) -> None:
    """At UpdateContainerResources and UpdatePodSandboxResources, and of every container and pod.

    :raises InvalidArgument: naming `field` and the part.
    """
