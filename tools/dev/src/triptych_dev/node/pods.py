"""Ending every pod of the node before its daemons go."""

from __future__ import annotations

from pathlib import Path

import grpc
from runtime.v1 import api_pb2, api_pb2_grpc

from triptych_dev.node.errors import NotPossible

_SECONDS = 120.0


def remove_all(socket: Path) -> int:
    """Stop and remove every pod sandbox through the runtime socket; gives their number.

    :raises NotPossible: the runtime does not answer, or a pod cannot be removed.
    """
    if not socket.exists():
        return 0
    with grpc.insecure_channel(f"unix:{socket}", [("grpc.default_authority", "localhost")]) as channel:
        stub = api_pb2_grpc.RuntimeServiceStub(channel)
        try:
            pods = stub.ListPodSandbox(
                api_pb2.ListPodSandboxRequest(), timeout=10, wait_for_ready=True
            ).items
            for pod in pods:
                stub.StopPodSandbox(api_pb2.StopPodSandboxRequest(pod_sandbox_id=pod.id), timeout=_SECONDS)
                remove = api_pb2.RemovePodSandboxRequest(pod_sandbox_id=pod.id)
                stub.RemovePodSandbox(remove, timeout=_SECONDS)
        except grpc.RpcError as error:
            details = error.details() if isinstance(error, grpc.Call) else None
            raise NotPossible(
                f"pods cannot be removed: {details or error}",
                hint="start triptych-runtime, or remove the pods' remains by hand and use --keep-pods",
            ) from None
        return len(pods)
