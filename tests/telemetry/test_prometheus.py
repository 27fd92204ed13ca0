"""A real Prometheus scrapes the three daemons and is asked the dashboard's queries and the alert rules."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev import kubelet, streamclient
from triptych_dev.stack import Registry, Stack, free_port

pytestmark = [
    pytest.mark.integration,
    pytest.mark.requires(
        "prometheus", "bridge", "busybox", "conmon", "docker-registry", "runc", "seccomp.json"
    ),
    pytest.mark.timeout(240),
]

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = ROOT / "deploy/grafana/triptych.json"
ALERTS = ROOT / "deploy/prometheus/alerts.yml"
DAEMONS = ("image", "runtime", "streaming")
QUIET = {"Refused", "Monitors lost", "NRI plugins (p90)"}
"""Panels that have nothing to show on a node where nothing is refused or lost, and no plugin is."""


@dataclass
class Prometheus:
    """The server, by its HTTP API."""

    port: int

    def ask(self, path: str, **query: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            document = json.load(answer)
        assert document["status"] == "success", document
        return document["data"]

    def query(self, expression: str) -> list[Any]:
        result: list[Any] = self.ask("query", query=expression)["result"]
        return result

    def wait(self, expression: str, seconds: float = 60) -> list[Any]:
        """Ask until there is an answer."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = self.query(expression)
            if found:
                return found
            time.sleep(0.5)
        raise AssertionError(f"no answer to {expression}")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stack, dict[str, int]]]:
    ports = {daemon: free_port() for daemon in DAEMONS}
    overrides: dict[str, dict[str, Any]] = {
        daemon: {"metrics": {"address": f"127.0.0.1:{port}"}} for daemon, port in ports.items()
    }
    overrides["streaming"]["http"] = {"listen": f"127.0.0.1:{free_port()}"}
    stack = Stack(tmp_path_factory.mktemp("metrics"), "triptych-prom", "10.94.0.0/16", overrides)
    stack.write_configuration()
    try:
        stack.start()
        yield stack, ports
    finally:
        stack.clean()


@pytest.fixture(scope="module")
def prometheus(
    stack: tuple[Stack, dict[str, int]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    directory = tmp_path_factory.mktemp("prometheus")
    shutil.copy(ALERTS, directory)
    jobs = "".join(
        f"  - job_name: triptych-{daemon}\n    static_configs: [{{targets: ['127.0.0.1:{port}']}}]\n"
        for daemon, port in stack[1].items()
    )
    head = "global: {scrape_interval: 1s, evaluation_interval: 1s}\nrule_files: [alerts.yml]\n"
    (directory / "prometheus.yml").write_text(f"{head}scrape_configs:\n{jobs}")
    port = free_port()
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={directory}/prometheus.yml",
                f"--storage.tsdb.path={directory}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    server = Prometheus(port)
    try:
        end = time.monotonic() + 30
        while True:
            try:
                server.query("1")
                break
            except OSError:
                assert process.poll() is None and time.monotonic() < end, (directory / "log").read_text()
                time.sleep(0.2)
        yield server
    finally:
        process.terminate()
        process.wait(timeout=20)


async def _load(stack: Stack, host: str, reference: str, turn: int) -> None:
    """A pod's whole life, an exec over HTTP, a pull that works and one that does not."""
    async with kubelet.connect(stack.socket("runtime"), stack.socket("image")) as node:
        runtime, images = node.runtime, node.images
        events = runtime.GetContainerEvents(cri.GetEventsRequest())
        reading = asyncio.create_task(_drain(events))
        await images.PullImage(cri.PullImageRequest(image=cri.ImageSpec(image=reference)), timeout=60)
        with pytest.raises(grpc.RpcError):
            missing = cri.ImageSpec(image=f"{host}/none:{turn}")
            await images.PullImage(cri.PullImageRequest(image=missing), timeout=60)
        config = kubelet.pod_config(f"metrics-{turn}")
        ran = await runtime.RunPodSandbox(cri.RunPodSandboxRequest(config=config), timeout=60)
        pod = ran.pod_sandbox_id
        made = await runtime.CreateContainer(
            cri.CreateContainerRequest(
                pod_sandbox_id=pod,
                config=kubelet.container_config("sleep", reference, ["sleep", "100"]),
                sandbox_config=config,
            ),
            timeout=60,
        )
        name = made.container_id
        await runtime.StartContainer(cri.StartContainerRequest(container_id=name), timeout=60)
        asked = cri.ExecRequest(container_id=name, cmd=["echo", "hello"], stdout=True, stderr=True)
        opened = await runtime.Exec(asked, timeout=60)
        assert (await streamclient.exec_spdy(opened.url)).stdout == b"hello\n"
        with pytest.raises(grpc.RpcError):
            await runtime.ContainerStatus(cri.ContainerStatusRequest(container_id="0" * 64), timeout=60)
        await runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=pod), timeout=60)
        await runtime.RemovePodSandbox(cri.RemovePodSandboxRequest(pod_sandbox_id=pod), timeout=60)
        await images.RemoveImage(cri.RemoveImageRequest(image=cri.ImageSpec(image=reference)), timeout=60)
        reading.cancel()
        events.cancel()


async def _drain(events: Any) -> None:
    async for _ in events:
        pass


@pytest.fixture(scope="module")
def loaded(
    stack: tuple[Stack, dict[str, int]], prometheus: Prometheus, live_registry: Registry, live_image: str
) -> Prometheus:
    """Prometheus after some work was done over several scrapes."""
    for daemon in DAEMONS:
        prometheus.wait(f'up{{job="triptych-{daemon}"}} == 1')
    for turn in range(4):
        asyncio.run(_load(stack[0], live_registry.host, live_image, turn))
        time.sleep(1.5)
    return prometheus


def test_every_panel_of_the_dashboard_has_an_answer(loaded: Prometheus) -> None:
    board = json.loads(DASHBOARD.read_text())
    asked = 0
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "30s")
            found = loaded.query(expression)
            asked += 1
            if panel["title"] in QUIET:
                continue
            assert found, f"{panel['title']}: nothing for {expression}"
            for series in found:
                for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                    assert label in series["metric"] or label == "host", (
                        f"{panel['title']}: no label {label}"
                    )
    assert asked > 30


def test_what_was_done_was_counted(loaded: Prometheus) -> None:
    def value(expression: str) -> float:
        found = loaded.query(expression)
        assert len(found) == 1, (expression, found)
        return float(found[0]["value"][1])

    assert value('sum(triptych_image_pulls_total{outcome="ok"})') == 4
    assert value('sum(triptych_image_pulls_total{outcome="error",code="NOT_FOUND"})') == 4
    assert value("sum(triptych_image_layers_fetched_total)") == 12
    assert value('sum(triptych_streaming_sessions_total{kind="exec"})') == 4
    assert value('sum(triptych_rpc_duration_seconds_count{method="RunPodSandbox",code="OK"})') == 4
    assert value('sum(triptych_step_duration_seconds_count{step="cni.add",outcome="ok"})') >= 4
    assert value("sum(triptych_runtime_container_exits_total)") == 4
    assert value("sum(triptych_runtime_event_lag_seconds_count)") >= 8
    assert value('sum(triptych_runtime_sandboxes{state="ready"})') == 0


def test_alert_rules_are_evaluated_and_a_dead_daemon_is_told(
    loaded: Prometheus, stack: tuple[Stack, dict[str, int]]
) -> None:
    groups = loaded.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 11
    assert [rule["name"] for rule in rules if rule["health"] != "ok"] == []
    assert [alert["labels"]["alertname"] for alert in loaded.ask("alerts")["alerts"]] == []
    stack[0].kill("streaming")
    try:
        end = time.monotonic() + 30
        while not loaded.ask("alerts")["alerts"] and time.monotonic() < end:
            time.sleep(0.5)
        (alert,) = loaded.ask("alerts")["alerts"]
        assert alert["labels"]["alertname"] == "TriptychDaemonDown"
        assert alert["labels"]["job"] == "triptych-streaming"
        assert alert["state"] == "pending"
    finally:
        stack[0].start("streaming")
