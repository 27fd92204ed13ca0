"""What every socket of the three daemons offers: privacy, health, reflection, version, one-endpoint use."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from runtime.v1 import api_pb2, api_pb2_grpc
from triptych_dev.patience import PATIENCE
from triptych_dev.stack import Stack

pytestmark = pytest.mark.integration

SERVICES = {
    "image": {
        "runtime.v1.ImageService",
        "triptych.rootfs.v1.RootfsService",
        "triptych.image.v1.ImageAdminService",
    },
    "runtime": {"runtime.v1.RuntimeService", "runtime.v1.ImageService"},
    "streaming": {"triptych.streaming.v1.StreamingService"},
}


@pytest.mark.parametrize("daemon", SERVICES)
def test_socket_is_private(live_stack: Stack, daemon: str) -> None:
    assert stat.S_IMODE(Path(live_stack.socket(daemon)).stat().st_mode) == 0o600


@pytest.mark.parametrize("daemon", SERVICES)
def test_reflection_describes_every_method(live_stack: Stack, daemon: str) -> None:
    with grpc.insecure_channel(f"unix:{live_stack.socket(daemon)}") as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) >= SERVICES[daemon]
        pool = DescriptorPool(database)
        for service in SERVICES[daemon]:
            for method in pool.FindServiceByName(service).methods:
                assert method.input_type.full_name
                assert method.output_type.full_name


@pytest.mark.parametrize("daemon", SERVICES)
def test_every_service_is_healthy(live_stack: Stack, daemon: str) -> None:
    with grpc.insecure_channel(f"unix:{live_stack.socket(daemon)}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for service in ("", *SERVICES[daemon]):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10 * PATIENCE)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_the_runtime_socket_alone_is_enough(live_stack: Stack, live_image: str) -> None:
    with grpc.insecure_channel(f"unix:{live_stack.socket('runtime')}") as channel:
        images = api_pb2_grpc.ImageServiceStub(channel)
        spec = api_pb2.ImageSpec(image=live_image)
        pulled = images.PullImage(api_pb2.PullImageRequest(image=spec), timeout=60 * PATIENCE)
        found = images.ImageStatus(api_pb2.ImageStatusRequest(image=spec), timeout=10 * PATIENCE)
        assert found.image.id == pulled.image_ref
        assert images.ImageFsInfo(api_pb2.ImageFsInfoRequest(), timeout=10 * PATIENCE).image_filesystems
        with pytest.raises(grpc.RpcError) as raised:
            missing = api_pb2.ImageSpec(image="127.0.0.1:1/none:latest")
            images.PullImage(api_pb2.PullImageRequest(image=missing), timeout=60 * PATIENCE)
        error: Any = raised.value
        assert error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN)
        assert "127.0.0.1:1" in error.details()


@pytest.mark.parametrize("daemon", SERVICES)
def test_a_second_daemon_on_the_socket_is_refused(live_stack: Stack, daemon: str) -> None:
    import subprocess
    import sys

    argv = [sys.executable, "-m", f"triptych_{daemon}", "--config", str(live_stack.config_file(daemon))]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60 * PATIENCE)
    assert done.returncode == 1
    owner = live_stack.processes[daemon].popen.pid
    assert f"is served by process {owner}" in done.stderr


def test_the_doctor_finds_the_live_daemons_well(live_stack: Stack) -> None:
    import json
    import subprocess
    import sys

    options = [f"--{daemon}-socket={live_stack.socket(daemon)}" for daemon in SERVICES]
    argv = [sys.executable, "-m", "triptych_cli", *options, "doctor", "-o", "json", "sockets"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60 * PATIENCE)
    assert done.returncode == 0, done.stdout
    (report,) = json.loads(done.stdout)
    states = {finding["subject"]: finding["state"] for finding in report["findings"]}
    assert {states[f"triptych-{daemon}"] for daemon in SERVICES} == {"ok"}
    assert states["RuntimeReady"] == states["NetworkReady"] == "ok"
    pid = live_stack.processes["runtime"].popen.pid
    assert any(f"process {pid}" in finding["detail"] for finding in report["findings"])
