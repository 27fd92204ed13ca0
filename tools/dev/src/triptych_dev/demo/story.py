"""The demo itself: what a kubelet does with a pod, from the pull to the removal."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from runtime.v1 import api_pb2 as cri
from triptych.image.v1 import image_pb2

from triptych_dev import streamclient
from triptych_dev.demo import setting
from triptych_dev.demo.image import GREETING
from triptych_dev.demo.narrator import Narrator
from triptych_dev.errors import StepFailed
from triptych_dev.kubelet import Kubelet, container_config, parse_log, pod_config
from triptych_dev.patience import PATIENCE

_PORT = 8080
_WEB = f"httpd -f -p {_PORT} -h /www & trap 'kill $!; exit 0' TERM; wait"
_WORKER = (
    'trap "echo stopping; exit 0" TERM; echo "worker of $HOSTNAME starts";'
    ' while read -r line; do echo "you said: $line"; done; sleep 1000 & wait'
)


@dataclass(slots=True)
class Pod:
    """What the story makes, for the steps that follow and for the marks of what must go."""

    image: str = ""
    config: cri.PodSandboxConfig = field(default_factory=cri.PodSandboxConfig)
    sandbox: str = ""
    ip: str = ""
    containers: dict[str, str] = field(default_factory=dict)


def expect(holds: bool, what: str) -> None:
    """The demo is a test: a step whose effect is not seen fails it."""
    if not holds:
        raise StepFailed(what)


class Story:
    """The steps, in their order; each speaks through the narrator.

    :param metadata: sent with the RPCs that start the pod; a traceparent, when they are traced.
    """

    def __init__(
        self, kubelet: Kubelet, narrator: Narrator, metadata: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self._kubelet = kubelet
        self._narrator = narrator
        self._metadata = metadata
        self.pod = Pod()

    async def look_around(self) -> None:
        """What a kubelet asks first."""
        with self._narrator.step("Version, Status, ImageFsInfo") as step:
            version = await self._kubelet.runtime.Version(cri.VersionRequest())
            status = await self._ready()
            usage = await self._kubelet.images.ImageFsInfo(cri.ImageFsInfoRequest())
            step.say(f"{version.runtime_name} {version.runtime_version}, CRI {version.runtime_api_version}")
            for condition in status.status.conditions:
                reason = "" if condition.status else f": {condition.reason} {condition.message}"
                step.say(f"{condition.type}: {'yes' if condition.status else 'no'}{reason}")
                expect(condition.status, f"{condition.type}{reason}")
            step.say(f"images are in {usage.image_filesystems[0].fs_id.mountpoint}")

    async def _ready(self) -> Any:
        """Status, once all is ready: the daemon looks at its OCI runtimes while it answers already."""
        deadline = time.monotonic() + 10 * PATIENCE
        while True:
            status = await self._kubelet.runtime.Status(cri.StatusRequest())
            if all(c.status for c in status.status.conditions) or time.monotonic() > deadline:
                return status
            await asyncio.sleep(0.05)

    async def pull(self, reference: str) -> None:
        """Pull with progress."""
        self.pod.image = reference
        with self._narrator.step(f"pull {reference}") as step, self._narrator.progress() as bars:
            tasks: dict[str, Any] = {}
            last = image_pb2.PullProgress()
            spec = cri.ImageSpec(image=reference)
            async for last in self._kubelet.admin.PullImage(cri.PullImageRequest(image=spec)):
                for layer in last.layers:
                    if layer.digest not in tasks:
                        tasks[layer.digest] = bars.add_task(layer.digest[7:19], total=None)
                    bars.update(
                        tasks[layer.digest], completed=layer.received_bytes, total=layer.total_bytes or None
                    )
            expect(last.done and not last.error, f"pull: {last.error}")
            for layer in last.layers:
                step.say(
                    f"{layer.digest[7:19]}: {layer.received_bytes} bytes received, "
                    f"{layer.unpacked_bytes} unpacked, {layer.entries} entries"
                )
            step.say(f"image {last.image_id}")
        with self._narrator.step("ImageStatus, ListImages") as step:
            found = await self._kubelet.images.ImageStatus(cri.ImageStatusRequest(image=spec))
            listed = await self._kubelet.images.ListImages(cri.ListImagesRequest())
            expect(found.image.id in {image.id for image in listed.images}, "the image is not listed")
            step.say(f"{found.image.repo_tags[0]}, {found.image.size / 1e6:.1f} MB unpacked")

    async def run_pod(self) -> None:
        """A pod with two containers."""
        self.pod.config = pod_config(
            "demo", log_directory=str(setting.logs() / "demo"), cgroup_parent=f"{setting.CGROUP}/pod-demo"
        )
        with self._narrator.step("RunPodSandbox") as step:
            answer = await self._kubelet.runtime.RunPodSandbox(
                cri.RunPodSandboxRequest(config=self.pod.config), metadata=self._metadata
            )
            self.pod.sandbox = answer.pod_sandbox_id
            step.say(f"sandbox {self.pod.sandbox[:12]}")
        with self._narrator.step("PodSandboxStatus") as step:
            request = cri.PodSandboxStatusRequest(pod_sandbox_id=self.pod.sandbox)
            status = (await self._kubelet.runtime.PodSandboxStatus(request)).status
            self.pod.ip = status.network.ip
            expect(bool(self.pod.ip), "the pod has no IP")
            step.say(f"{cri.PodSandboxState.Name(status.state)}, IP {self.pod.ip}")
        web = container_config("web", self.pod.image, ["sh", "-c", _WEB], pod="demo")
        worker = container_config("worker", self.pod.image, ["sh", "-c", _WORKER], stdin=True, pod="demo")
        for config in (web, worker):
            await self._start(config)

    async def _start(self, config: cri.ContainerConfig) -> None:
        name = config.metadata.name
        request = cri.CreateContainerRequest(
            pod_sandbox_id=self.pod.sandbox, config=config, sandbox_config=self.pod.config
        )
        with self._narrator.step(f"CreateContainer {name}"):
            answer = await self._kubelet.runtime.CreateContainer(request, metadata=self._metadata)
            self.pod.containers[name] = answer.container_id
        with self._narrator.step(f"StartContainer {name}") as step:
            start = cri.StartContainerRequest(container_id=answer.container_id)
            await self._kubelet.runtime.StartContainer(start, metadata=self._metadata)
            step.say(f"container {answer.container_id[:12]}: {' '.join(config.command)[:60]}")

    async def exec_sync(self) -> None:
        """A command, as probes run it."""
        with self._narrator.step("ExecSync in web: hostname; wget from the other side") as step:
            script = f'hostname; echo "$GREETING"; wget -qO- http://127.0.0.1:{_PORT}/'
            answer = await self._kubelet.runtime.ExecSync(
                cri.ExecSyncRequest(container_id=self.pod.containers["web"], cmd=["sh", "-c", script])
            )
            lines = answer.stdout.decode().splitlines()
            expect(answer.exit_code == 0 and lines == ["demo", GREETING, GREETING], f"ExecSync: {answer}")
            step.say(f"exit code {answer.exit_code}: {' | '.join(lines)}")

    async def streams(self) -> None:
        """Exec, attach and port-forward, over SPDY as the kubelet's clients come."""
        await self._exec()
        await self._attach()
        await self._forward()

    async def _exec(self) -> None:
        with self._narrator.step("Exec over SPDY: stdin, stdout, stderr, exit code") as step:
            request = cri.ExecRequest(
                container_id=self.pod.containers["web"],
                cmd=["sh", "-c", "tr a-z A-Z; echo problems >&2; exit 3"],
                stdin=True,
                stdout=True,
                stderr=True,
            )
            url = (await self._kubelet.runtime.Exec(request)).url
            done = await streamclient.exec_spdy(url, b"hello\n")
            heard = f"stdout {done.stdout!r}, stderr {done.stderr!r}, exit code {done.exit_code}"
            expect((done.stdout, done.stderr, done.exit_code) == (b"HELLO\n", b"problems\n", 3), heard)
            step.say(heard)

    async def _attach(self) -> None:
        with self._narrator.step("Attach to worker over SPDY: say something") as step:
            request = cri.AttachRequest(
                container_id=self.pod.containers["worker"], stdin=True, stdout=True, stderr=True
            )
            url = (await self._kubelet.runtime.Attach(request)).url
            async with streamclient.attach_spdy(url, stdin=True) as attached, asyncio.timeout(10 * PATIENCE):
                assert attached.stdin is not None and attached.stdout is not None
                await attached.stdin.write(b"good day\n")
                heard = await attached.stdout.read_until(b"good day\n")
            expect(b"you said: good day\n" in heard, f"attach: {heard!r}")
            step.say(heard.decode().strip())

    async def _forward(self) -> None:
        with self._narrator.step(f"PortForward to {_PORT} through the pod's network") as step:
            request = cri.PortForwardRequest(pod_sandbox_id=self.pod.sandbox, port=[_PORT])
            url = (await self._kubelet.runtime.PortForward(request)).url
            async with streamclient.portforward_spdy(url) as session, asyncio.timeout(10 * PATIENCE):
                connection = await session.connect(_PORT)
                await connection.data.write(b"GET / HTTP/1.0\r\nHost: demo\r\n\r\n")
                answer = (await connection.data.read_all()).decode()
            lines = answer.splitlines()
            expect(bool(lines) and "200" in lines[0] and lines[-1] == GREETING, f"port-forward: {answer!r}")
            step.say(f"{lines[0]} ... {lines[-1]}")

    async def logs(self) -> None:
        """CRI log files, and a new one after a rotation."""
        with self._narrator.step("read the log of worker, rotate it, ReopenContainerLog") as step:
            path = setting.logs() / "demo/worker/0.log"
            text = await _until(lambda: path.read_text() if "good day" in path.read_text() else "")
            for line in parse_log(text):
                step.say(f"{line.time} {line.stream}: {line.text}")
            path.rename(path.with_suffix(".1"))
            request = cri.ReopenContainerLogRequest(container_id=self.pod.containers["worker"])
            await self._kubelet.runtime.ReopenContainerLog(request)
            expect(path.exists(), "no new log file")

    async def stats(self) -> None:
        """What the pod uses."""
        with self._narrator.step("ListContainerStats, PodSandboxStats") as step:
            listed = await self._kubelet.runtime.ListContainerStats(cri.ListContainerStatsRequest())
            expect(
                len(listed.stats) == len(self.pod.containers), f"{len(listed.stats)} containers have stats"
            )
            for stats in listed.stats:
                cpu = stats.cpu.usage_core_nano_seconds.value / 1e6
                memory = stats.memory.working_set_bytes.value / 1e6
                disk = stats.writable_layer.used_bytes.value
                name = stats.attributes.metadata.name
                step.say(f"{name}: cpu {cpu:.1f} ms, memory {memory:.2f} MB, writable layer {disk} bytes")
            pod = await self._kubelet.runtime.PodSandboxStats(
                cri.PodSandboxStatsRequest(pod_sandbox_id=self.pod.sandbox)
            )
            interface = pod.stats.linux.network.default_interface
            step.say(
                f"{interface.name}: {interface.rx_bytes.value} bytes in, {interface.tx_bytes.value} out"
            )
        with self._narrator.step("ContainerStatus, ListContainers, ListPodSandbox") as step:
            containers = (await self._kubelet.runtime.ListContainers(cri.ListContainersRequest())).containers
            pods = (await self._kubelet.runtime.ListPodSandbox(cri.ListPodSandboxRequest())).items
            expect({c.id for c in containers} == set(self.pod.containers.values()), "containers are missing")
            expect([p.id for p in pods] == [self.pod.sandbox], "the pod is missing")
            for container in containers:
                step.say(f"{container.metadata.name}: {cri.ContainerState.Name(container.state)}")

    async def stop(self) -> None:
        """Stop and remove everything, and once more, as the kubelet may."""
        for name, identity in self.pod.containers.items():
            with self._narrator.step(f"StopContainer {name}") as step:
                await self._kubelet.runtime.StopContainer(
                    cri.StopContainerRequest(container_id=identity, timeout=5)
                )
                status = await self._kubelet.runtime.ContainerStatus(
                    cri.ContainerStatusRequest(container_id=identity)
                )
                step.say(f"{status.status.reason}, exit code {status.status.exit_code}")
        for name, identity in self.pod.containers.items():
            with self._narrator.step(f"RemoveContainer {name}, twice"):
                for _ in range(2):
                    await self._kubelet.runtime.RemoveContainer(
                        cri.RemoveContainerRequest(container_id=identity)
                    )
        with self._narrator.step("StopPodSandbox"):
            await self._kubelet.runtime.StopPodSandbox(
                cri.StopPodSandboxRequest(pod_sandbox_id=self.pod.sandbox)
            )
        with self._narrator.step("RemovePodSandbox, twice"):
            for _ in range(2):
                await self._kubelet.runtime.RemovePodSandbox(
                    cri.RemovePodSandboxRequest(pod_sandbox_id=self.pod.sandbox)
                )
        with self._narrator.step("RemoveImage") as step:
            spec = cri.ImageSpec(image=self.pod.image)
            await self._kubelet.images.RemoveImage(cri.RemoveImageRequest(image=spec))
            left = (await self._kubelet.images.ListImages(cri.ListImagesRequest())).images
            expect(not left, "an image is left")
            step.say("no image is left")


async def _until(read: Any, seconds: float = 5.0 * PATIENCE) -> str:
    """What `read` gives once it gives something."""
    deadline = time.monotonic() + seconds
    while True:
        text: str = read()
        if text or time.monotonic() > deadline:
            return text
        await asyncio.sleep(0.02)
