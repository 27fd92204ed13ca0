"""CheckpointContainer, CheckpointPod and RestorePod: not built yet."""

from __future__ import annotations

from runtime.v1 import api_pb2
from triptych_errors import Unimplemented

from triptych_runtime.node import Node


async def checkpoint_container(
    node: Node, request: api_pb2.CheckpointContainerRequest
) -> api_pb2.CheckpointContainerResponse:
    """:raises Unimplemented: always."""
    raise Unimplemented("CheckpointContainer: this release of triptych cannot checkpoint containers")


async def checkpoint_pod(node: Node, request: api_pb2.CheckpointPodRequest) -> api_pb2.CheckpointPodResponse:
    """:raises Unimplemented: always."""
    raise Unimplemented("CheckpointPod: this release of triptych cannot checkpoint pods")


async def restore_pod(node: Node, request: api_pb2.RestorePodRequest) -> api_pb2.RestorePodResponse:
    """:raises Unimplemented: always."""
    raise Unimplemented("RestorePod: this release of triptych cannot restore pods")
