"""Version: the kubelet's connection check."""

from __future__ import annotations

from runtime.v1 import api_pb2

from triptych_runtime import __version__

RUNTIME_NAME = "triptych"
RUNTIME_API_VERSION = "v1"
KUBELET_API_VERSION = "0.1.0"


def version(request: api_pb2.VersionRequest) -> api_pb2.VersionResponse:
    """Answers at once, also while the daemon still reconciles."""
    return api_pb2.VersionResponse(
        version=KUBELET_API_VERSION,
        runtime_name=RUNTIME_NAME,
        runtime_version=__version__,
        runtime_api_version=RUNTIME_API_VERSION,
    )
