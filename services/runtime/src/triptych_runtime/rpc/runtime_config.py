"""RuntimeConfig and UpdateRuntimeConfig."""

from __future__ import annotations

from runtime.v1 import api_pb2

from triptych_runtime.cgroups import Driver
from triptych_runtime.node import Node


def runtime_config(node: Node, request: api_pb2.RuntimeConfigRequest) -> api_pb2.RuntimeConfigResponse:
    """Tells the kubelet the cgroup driver (KEP-4033)."""
    systemd = node.cgroups.driver is Driver.SYSTEMD
    driver = api_pb2.SYSTEMD if systemd else api_pb2.CGROUPFS
    return api_pb2.RuntimeConfigResponse(linux=api_pb2.LinuxRuntimeConfiguration(cgroup_driver=driver))


async def update_runtime_config(
    node: Node, request: api_pb2.UpdateRuntimeConfigRequest
) -> api_pb2.UpdateRuntimeConfigResponse:
    """Takes the node's pod CIDR for CNI.

    :raises PodCidrInvalid: when it is no subnet.
    """
    cidr = request.runtime_config.network_config.pod_cidr
    if cidr:
        await node.network.set_pod_cidr(cidr)
    return api_pb2.UpdateRuntimeConfigResponse()
