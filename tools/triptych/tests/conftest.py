"""A node of fake daemons: real gRPC on real sockets, answers from memory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from runtime.v1 import api_pb2, api_pb2_grpc
from triptych.image.v1 import image_pb2, image_pb2_grpc
from triptych.streaming.v1 import streaming_pb2, streaming_pb2_grpc
from triptych_cli import __main__ as entry

DIGEST = "sha256:" + "ab" * 32
LAYER = "sha256:" + "cd" * 32


class Health:
    """grpc.health.v1 as the daemons answer it."""

    asked = 0
    pid = os.getpid()

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked += 1  # so a reload that is waited for comes at the next question
        about = {"version": "9.8.7", "pid": str(self.pid), "reloads": str(self.asked)}
        context.send_initial_metadata(tuple((f"triptych-{key}", value) for key, value in about.items()))
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


class FakeRuntime(api_pb2_grpc.RuntimeServiceServicer):
    network_ready = True
    seen: list[str]

    def __init__(self) -> None:
        self.seen = []
        self.metadata: dict[str, str] = {}
        self.cpu = 0
        self.on_status: Callable[[], None] = lambda: None

    def Status(self, request: api_pb2.StatusRequest, context: Any) -> api_pb2.StatusResponse:
        self.metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self.on_status()
        conditions = [
            api_pb2.RuntimeCondition(type="RuntimeReady", status=True),
            api_pb2.RuntimeCondition(
                type="NetworkReady",
                status=self.network_ready,
                reason="NoConfig",
                message="no CNI configuration",
            ),
        ]
        return api_pb2.StatusResponse(
            status=api_pb2.RuntimeStatus(conditions=conditions),
            runtime_handlers=[api_pb2.RuntimeHandler(name=""), api_pb2.RuntimeHandler(name="crun")],
            info={"config": '{"registry": {"password": "hunter2"}}'} if request.verbose else None,
        )

    def ListPodSandbox(self, request: Any, context: Any) -> api_pb2.ListPodSandboxResponse:
        ready = api_pb2.PodSandbox(id="a" * 64, state=api_pb2.SANDBOX_READY)
        gone = api_pb2.PodSandbox(id="b" * 64, state=api_pb2.SANDBOX_NOTREADY)
        return api_pb2.ListPodSandboxResponse(items=[ready, ready, gone])

    def ListContainers(self, request: Any, context: Any) -> api_pb2.ListContainersResponse:
        running = api_pb2.Container(id="c" * 64, state=api_pb2.CONTAINER_RUNNING)
        return api_pb2.ListContainersResponse(containers=[running])

    def ListContainerStats(self, request: Any, context: Any) -> api_pb2.ListContainerStatsResponse:
        self.cpu += 10**9
        stats = api_pb2.ContainerStats()
        stats.attributes.id = "c" * 64
        stats.attributes.metadata.name = "web"
        stats.attributes.labels["io.kubernetes.pod.name"] = "shop"
        stats.attributes.labels["io.kubernetes.pod.namespace"] = "default"
        stats.cpu.usage_core_nano_seconds.value = self.cpu
        stats.memory.working_set_bytes.value = 5 << 20
        return api_pb2.ListContainerStatsResponse(stats=[stats])

    def RunPodSandbox(self, request: Any, context: Any) -> api_pb2.RunPodSandboxResponse:
        self.seen.append(f"run {request.config.metadata.name}")
        return api_pb2.RunPodSandboxResponse(pod_sandbox_id="d" * 64)

    def StopPodSandbox(self, request: Any, context: Any) -> api_pb2.StopPodSandboxResponse:
        self.seen.append(f"stop {request.pod_sandbox_id[0]}")
        return api_pb2.StopPodSandboxResponse()

    def RemovePodSandbox(self, request: Any, context: Any) -> api_pb2.RemovePodSandboxResponse:
        self.seen.append(f"remove {request.pod_sandbox_id[0]}")
        return api_pb2.RemovePodSandboxResponse()


class FakeImages(api_pb2_grpc.ImageServiceServicer, image_pb2_grpc.ImageAdminServiceServicer):
    def __init__(self) -> None:
        self.images = {
            "registry.test/app:v1": api_pb2.Image(
                id=DIGEST,
                repo_tags=["registry.test/app:v1"],
                repo_digests=[f"registry.test/app@{LAYER}"],
                size=3 << 20,
                pinned=True,
            )
        }
        self.running: list[image_pb2.PullProgress] = []
        self.requests: list[Any] = []

    def ListImages(self, request: Any, context: Any) -> api_pb2.ListImagesResponse:
        wanted = request.filter.image.image
        return api_pb2.ListImagesResponse(
            images=[image for name, image in self.images.items() if wanted in ("", name)]
        )

    def ImageStatus(self, request: Any, context: Any) -> api_pb2.ImageStatusResponse:
        image = self.images.get(request.image.image)
        info = {"info": '{"config": {"Cmd": ["/bin/app"]}}'} if request.verbose else None
        return api_pb2.ImageStatusResponse(image=image, info=info)

    def RemoveImage(self, request: Any, context: Any) -> api_pb2.RemoveImageResponse:
        self.images.pop(request.image.image, None)
        return api_pb2.RemoveImageResponse()

    def ImageFsInfo(self, request: Any, context: Any) -> api_pb2.ImageFsInfoResponse:
        used = api_pb2.FilesystemUsage(
            fs_id=api_pb2.FilesystemIdentifier(mountpoint="/var/lib/triptych/image"),
            used_bytes=api_pb2.UInt64Value(value=10 << 20),
            inodes_used=api_pb2.UInt64Value(value=42),
        )
        layers = api_pb2.FilesystemUsage(fs_id=used.fs_id)
        layers.used_bytes.value, layers.inodes_used.value = 5 << 20, 8
        return api_pb2.ImageFsInfoResponse(image_filesystems=[used], container_filesystems=[layers])

    def PullImage(self, request: Any, context: Any) -> Any:
        """Serves both services: CRI's answers once, the admin service's with progress."""
        self.requests.append(request)
        reference = request.image.image
        layer = image_pb2.LayerProgress(digest=LAYER, total_bytes=1000)
        for stage, received in ((image_pb2.PULL_STAGE_FETCHING, 500), (image_pb2.PULL_STAGE_DONE, 1000)):
            layer.stage, layer.received_bytes, layer.unpacked_bytes = stage, received, received * 2
            yield image_pb2.PullProgress(
                reference=reference,
                stage=image_pb2.PULL_STAGE_FETCHING,
                layers=[layer],
                started_at=time.time_ns(),
                host="mirror.test",
            )
        if "missing" in reference:
            failed = f"RegistryUnavailable: {reference}: not found"
            yield image_pb2.PullProgress(
                reference=reference, stage=image_pb2.PULL_STAGE_FAILED, done=True, error=failed, error_code=5
            )
            return
        yield image_pb2.PullProgress(
            reference=reference, stage=image_pb2.PULL_STAGE_DONE, layers=[layer], done=True, image_id=DIGEST
        )

    def WatchPulls(self, request: Any, context: grpc.ServicerContext) -> Iterator[image_pb2.PullProgress]:
        yield from self.running
        while context.is_active():
            time.sleep(0.02)

    def Load(self, request: Any, context: Any) -> image_pb2.LoadResponse:
        self.requests.append((request, Path(request.path).read_bytes()))
        return image_pb2.LoadResponse(references=["registry.test/loaded:v1"], image_ids=[DIGEST])

    def Save(self, request: Any, context: Any) -> image_pb2.SaveResponse:
        Path(request.path).write_bytes(b"archive of " + ",".join(request.images).encode())
        return image_pb2.SaveResponse(bytes=11)

    def Push(self, request: Any, context: Any) -> image_pb2.PushResponse:
        self.requests.append(request)
        return image_pb2.PushResponse(digest=DIGEST)

    def Tag(self, request: Any, context: Any) -> image_pb2.TagResponse:
        self.requests.append(request)
        return image_pb2.TagResponse()

    def Prune(self, request: Any, context: Any) -> image_pb2.PruneResponse:
        removed = ["registry.test/old:v1"] if request.images else []
        return image_pb2.PruneResponse(removed_images=removed, freed_bytes=2048)

    def Verify(self, request: Any, context: Any) -> Iterator[image_pb2.VerifyResult]:
        yield image_pb2.VerifyResult(image_id=DIGEST, object=DIGEST, ok=True)
        if "odd" in request.images:
            yield image_pb2.VerifyResult(image_id=DIGEST, object=LAYER, ok=True, problem="not proved")
        if "damaged" in request.images:
            yield image_pb2.VerifyResult(image_id=DIGEST, object=LAYER, problem="3 bytes differ")


class FakeStreaming(streaming_pb2_grpc.StreamingServiceServicer):
    """:param active: the ID of the one session that runs here; another one waits for any instance."""

    def __init__(self, active: str = "7", waiting: str = "") -> None:
        self.active = active
        self.waiting = waiting

    def ListSessions(self, request: Any, context: Any) -> streaming_pb2.ListSessionsResponse:
        session = streaming_pb2.Session(
            id=self.active,
            kind=streaming_pb2.SESSION_KIND_PORT_FORWARD,
            target=streaming_pb2.Target(pod_namespace="default", pod_name="shop"),
            active=True,
            protocol="SPDY/3.1",
            created_at=time.time_ns() - 10**9,
            bytes_in=2048,
        )
        waiting = [streaming_pb2.Session(id=self.waiting)] if self.waiting else []
        return streaming_pb2.ListSessionsResponse(sessions=[session, *waiting])


@dataclass
class Result:
    """How a command ended."""

    status: int
    out: str
    err: str


@dataclass
class Node:
    """Fake daemons, and the command run against them."""

    directory: Path
    runtime: FakeRuntime
    images: FakeImages
    servers: dict[str, grpc.Server]
    capfd: pytest.CaptureFixture[str]
    monkeypatch: pytest.MonkeyPatch
    more: list[str] = field(default_factory=list)

    def run(self, *args: str) -> Result:
        """The command with the three sockets, in this process."""
        sockets = [
            f"--{name}-socket={self.directory / name}.sock" for name in ("image", "runtime", "streaming")
        ]
        self.monkeypatch.setattr(sys, "argv", ["triptych", *sockets, *args])
        self.capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            entry.main()
        captured = self.capfd.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    def add_streaming(self, pid: int, active: str = "7", waiting: str = "") -> None:
        """Another streaming instance, with an address of its own."""
        streaming = FakeStreaming(active, waiting)  # type: ignore[abstract]
        self.servers[f"streaming.{pid}"] = _serve(
            self.directory / f"streaming.sock.{pid}",
            lambda s: streaming_pb2_grpc.add_StreamingServiceServicer_to_server(streaming, s),
            pid=pid,
        )

    def stop(self, name: str) -> None:
        """Let one daemon be down."""
        self.servers[name].stop(None).wait()


def _serve(path: Path, *register: Callable[[grpc.Server], None], pid: int = os.getpid()) -> grpc.Server:
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    handler: Any = health_pb2_grpc
    handler.add_HealthServicer_to_server(type("H", (Health, handler.HealthServicer), {"pid": pid})(), server)
    for add in register:
        add(server)
    server.add_insecure_port(f"unix:{path}")
    server.start()
    return server


def _admin_only(images: FakeImages) -> Any:
    """CRI's PullImage is unary and the admin service's a stream, so the fakes are told apart."""

    class Cri(api_pb2_grpc.ImageServiceServicer):
        def __getattribute__(self, name: str) -> Any:
            if name == "PullImage":
                return lambda request, context: api_pb2.PullImageResponse(image_ref=DIGEST)
            return getattr(images, name) if name[:1].isupper() else super().__getattribute__(name)

    return Cri()  # type: ignore[abstract]


@pytest.fixture
def node(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Node]:
    runtime, images = FakeRuntime(), FakeImages()  # type: ignore[abstract]
    streaming = FakeStreaming()  # type: ignore[abstract]
    servers = {
        "runtime": _serve(
            tmp_path / "runtime.sock",
            lambda s: api_pb2_grpc.add_RuntimeServiceServicer_to_server(runtime, s),
        ),
        "image": _serve(
            tmp_path / "image.sock",
            lambda s: api_pb2_grpc.add_ImageServiceServicer_to_server(_admin_only(images), s),
            lambda s: image_pb2_grpc.add_ImageAdminServiceServicer_to_server(images, s),
        ),
        "streaming": _serve(
            tmp_path / "streaming.sock",
            lambda s: streaming_pb2_grpc.add_StreamingServiceServicer_to_server(streaming, s),
        ),
    }
    yield Node(tmp_path, runtime, images, servers, capfd, monkeypatch)
    for server in servers.values():
        server.stop(None).wait()
