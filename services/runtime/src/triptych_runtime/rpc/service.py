"""RuntimeService bound to gRPC: each method calls the module of its name, once the daemon is ready.

`lists` serves ListContainers, ListPodSandbox and their streams beside it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import grpc
from runtime.v1 import api_pb2, api_pb2_grpc

from triptych_runtime.node import Node
from triptych_runtime.readiness import Readiness
from triptych_runtime.rpc import lists, stats
from triptych_runtime.rpc.attach import attach
from triptych_runtime.rpc.container_status import container_status
from triptych_runtime.rpc.create_container import create_container
from triptych_runtime.rpc.exec import exec_
from triptych_runtime.rpc.exec_sync import exec_sync
from triptych_runtime.rpc.get_container_events import get_container_events
from triptych_runtime.rpc.patience import patience
from triptych_runtime.rpc.pod_sandbox_status import pod_sandbox_status
from triptych_runtime.rpc.port_forward import port_forward
from triptych_runtime.rpc.remove_container import remove_container
from triptych_runtime.rpc.remove_pod_sandbox import remove_pod_sandbox
from triptych_runtime.rpc.reopen_container_log import reopen_container_log
from triptych_runtime.rpc.run_pod_sandbox import run_pod_sandbox
from triptych_runtime.rpc.runtime_config import runtime_config, update_runtime_config
from triptych_runtime.rpc.start_container import start_container
from triptych_runtime.rpc.status import status
from triptych_runtime.rpc.stop_container import stop_container
from triptych_runtime.rpc.stop_pod_sandbox import stop_pod_sandbox
from triptych_runtime.rpc.update_container_resources import update_container_resources
from triptych_runtime.rpc.update_pod_sandbox_resources import update_pod_sandbox_resources
from triptych_runtime.rpc.version import version

SERVICE = "runtime.v1.RuntimeService"
ENDLESS = ("GetContainerEvents",)

Context = grpc.aio.ServicerContext[object, object]


def add_to_server(server: grpc.aio.Server, node: Node, ready: Readiness) -> None:
    """Serve the whole of RuntimeService."""
    servicer = RuntimeService(node, ready)  # type: ignore[abstract]  # the lists take their place below
    api_pb2_grpc.add_RuntimeServiceServicer_to_server(servicer, server)
    server.add_registered_method_handlers(SERVICE, lists.handlers(node, ready))


class RuntimeService(api_pb2_grpc.RuntimeServiceServicer):
    """The CRI's RuntimeService.

    Version answers at once. The rest waits until the daemon knows what lives: reads until the records are
    loaded, changes until the reconciliation is done. What few nodes use is imported by its first call.
    """

    def __init__(self, node: Node, ready: Readiness) -> None:
        self._node = node
        self._ready = ready

    def _streaming(self, context: Context) -> float:
        return patience(context, self._node.settings.deadlines.streaming)

    async def Version(self, request: api_pb2.VersionRequest, context: Context) -> api_pb2.VersionResponse:
        return version(request)

    async def RunPodSandbox(
        self, request: api_pb2.RunPodSandboxRequest, context: Context
    ) -> api_pb2.RunPodSandboxResponse:
        await self._ready.reconciled()
        return await run_pod_sandbox(self._node, request)

    async def StopPodSandbox(
        self, request: api_pb2.StopPodSandboxRequest, context: Context
    ) -> api_pb2.StopPodSandboxResponse:
        await self._ready.reconciled()
        return await stop_pod_sandbox(self._node, request)

    async def RemovePodSandbox(
        self, request: api_pb2.RemovePodSandboxRequest, context: Context
    ) -> api_pb2.RemovePodSandboxResponse:
        await self._ready.reconciled()
        return await remove_pod_sandbox(self._node, request)

    async def PodSandboxStatus(
        self, request: api_pb2.PodSandboxStatusRequest, context: Context
    ) -> api_pb2.PodSandboxStatusResponse:
        await self._ready.loaded()
        return await pod_sandbox_status(self._node, request)

    async def CreateContainer(
        self, request: api_pb2.CreateContainerRequest, context: Context
    ) -> api_pb2.CreateContainerResponse:
        await self._ready.reconciled()
        return await create_container(self._node, request)

    async def StartContainer(
        self, request: api_pb2.StartContainerRequest, context: Context
    ) -> api_pb2.StartContainerResponse:
        await self._ready.reconciled()
        return await start_container(self._node, request)

    async def StopContainer(
        self, request: api_pb2.StopContainerRequest, context: Context
    ) -> api_pb2.StopContainerResponse:
        await self._ready.reconciled()
        return await stop_container(self._node, request)

    async def RemoveContainer(
        self, request: api_pb2.RemoveContainerRequest, context: Context
    ) -> api_pb2.RemoveContainerResponse:
        await self._ready.reconciled()
        return await remove_container(self._node, request)

    async def ContainerStatus(
        self, request: api_pb2.ContainerStatusRequest, context: Context
    ) -> api_pb2.ContainerStatusResponse:
        await self._ready.loaded()
        return await container_status(self._node, request)

    async def UpdateContainerResources(
        self, request: api_pb2.UpdateContainerResourcesRequest, context: Context
    ) -> api_pb2.UpdateContainerResourcesResponse:
        await self._ready.reconciled()
        return await update_container_resources(self._node, request)

    async def ReopenContainerLog(
        self, request: api_pb2.ReopenContainerLogRequest, context: Context
    ) -> api_pb2.ReopenContainerLogResponse:
        await self._ready.reconciled()
        return await reopen_container_log(self._node, request)

    async def ExecSync(self, request: api_pb2.ExecSyncRequest, context: Context) -> api_pb2.ExecSyncResponse:
        await self._ready.reconciled()
        return await exec_sync(self._node, request)

    async def Exec(self, request: api_pb2.ExecRequest, context: Context) -> api_pb2.ExecResponse:
        await self._ready.reconciled()
        return await exec_(self._node, request, self._streaming(context))

    async def Attach(self, request: api_pb2.AttachRequest, context: Context) -> api_pb2.AttachResponse:
        await self._ready.reconciled()
        return await attach(self._node, request, self._streaming(context))

    async def PortForward(
        self, request: api_pb2.PortForwardRequest, context: Context
    ) -> api_pb2.PortForwardResponse:
        await self._ready.reconciled()
        return await port_forward(self._node, request, self._streaming(context))

    async def ContainerStats(
        self, request: api_pb2.ContainerStatsRequest, context: Context
    ) -> api_pb2.ContainerStatsResponse:
        await self._ready.loaded()
        return await stats.container_stats(self._node, request)

    async def ListContainerStats(
        self, request: api_pb2.ListContainerStatsRequest, context: Context
    ) -> api_pb2.ListContainerStatsResponse:
        await self._ready.loaded()
        return await stats.list_container_stats(self._node, request)

    async def StreamContainerStats(
        self, request: api_pb2.StreamContainerStatsRequest, context: Context
    ) -> AsyncIterator[api_pb2.StreamContainerStatsResponse]:
        await self._ready.loaded()
        async for answer in stats.stream_container_stats(self._node, request):
            yield answer

    async def PodSandboxStats(
        self, request: api_pb2.PodSandboxStatsRequest, context: Context
    ) -> api_pb2.PodSandboxStatsResponse:
        await self._ready.loaded()
        return await stats.pod_sandbox_stats(self._node, request)

    async def ListPodSandboxStats(
        self, request: api_pb2.ListPodSandboxStatsRequest, context: Context
    ) -> api_pb2.ListPodSandboxStatsResponse:
        await self._ready.loaded()
        return await stats.list_pod_sandbox_stats(self._node, request)

    async def StreamPodSandboxStats(
        self, request: api_pb2.StreamPodSandboxStatsRequest, context: Context
    ) -> AsyncIterator[api_pb2.StreamPodSandboxStatsResponse]:
        await self._ready.loaded()
        async for answer in stats.stream_pod_sandbox_stats(self._node, request):
            yield answer

    async def UpdateRuntimeConfig(
        self, request: api_pb2.UpdateRuntimeConfigRequest, context: Context
    ) -> api_pb2.UpdateRuntimeConfigResponse:
        await self._ready.loaded()
        return await update_runtime_config(self._node, request)

    async def Status(self, request: api_pb2.StatusRequest, context: Context) -> api_pb2.StatusResponse:
        await self._ready.loaded()
        return status(self._node, request)

    async def CheckpointContainer(
        self, request: api_pb2.CheckpointContainerRequest, context: Context
    ) -> api_pb2.CheckpointContainerResponse:
        from triptych_runtime.rpc.checkpoint_container import checkpoint_container

        await self._ready.reconciled()
        return await checkpoint_container(self._node, request)

    async def CheckpointPod(
        self, request: api_pb2.CheckpointPodRequest, context: Context
    ) -> api_pb2.CheckpointPodResponse:
        from triptych_runtime.rpc.checkpoint_pod import checkpoint_pod

        await self._ready.reconciled()
        return await checkpoint_pod(self._node, request)

    async def RestorePod(
        self, request: api_pb2.RestorePodRequest, context: Context
    ) -> api_pb2.RestorePodResponse:
        from triptych_runtime.rpc.restore_pod import restore_pod

        await self._ready.reconciled()
        return await restore_pod(self._node, request)

    async def GetContainerEvents(
        self, request: api_pb2.GetEventsRequest, context: Context
    ) -> AsyncIterator[api_pb2.ContainerEventResponse]:
        await self._ready.loaded()
        # The client's sign that it misses nothing any more is the answer's header.
        async for answer in get_container_events(
            self._node, request, lambda: context.send_initial_metadata(())
        ):
            yield answer

    async def ListMetricDescriptors(
        self, request: api_pb2.ListMetricDescriptorsRequest, context: Context
    ) -> api_pb2.ListMetricDescriptorsResponse:
        await self._ready.loaded()
        return await stats.list_metric_descriptors(self._node, request)

    async def ListPodSandboxMetrics(
        self, request: api_pb2.ListPodSandboxMetricsRequest, context: Context
    ) -> api_pb2.ListPodSandboxMetricsResponse:
        await self._ready.loaded()
        return await stats.list_pod_sandbox_metrics(self._node, request)

    async def StreamPodSandboxMetrics(
        self, request: api_pb2.StreamPodSandboxMetricsRequest, context: Context
    ) -> AsyncIterator[api_pb2.StreamPodSandboxMetricsResponse]:
        await self._ready.loaded()
        async for answer in stats.stream_pod_sandbox_metrics(self._node, request):
            yield answer

    async def RuntimeConfig(
        self, request: api_pb2.RuntimeConfigRequest, context: Context
    ) -> api_pb2.RuntimeConfigResponse:
        await self._ready.loaded()
        return runtime_config(self._node, request)

    async def UpdatePodSandboxResources(
        self, request: api_pb2.UpdatePodSandboxResourcesRequest, context: Context
    ) -> api_pb2.UpdatePodSandboxResourcesResponse:
        await self._ready.reconciled()
        return await update_pod_sandbox_resources(self._node, request)
