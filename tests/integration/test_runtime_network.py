"""The network of pods as the node sees it: ports of the node, and the pod CIDR that the kubelet tells."""

from __future__ import annotations

import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import pod_config
from triptych_dev.stack import Stack, free_port
from triptych_dev.testing.driver import DEADLINE, Driver, Pod, refused, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def gateway(driver: Driver, pod: Pod) -> str:
    """The node's own address in the pod network."""
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id)
    address: str = driver.stub.PodSandboxStatus(request, timeout=DEADLINE).status.network.ip
    return address.rpartition(".")[0].rsplit(".", 1)[0] + ".0.1"


def test_ports_of_the_node(driver: Driver) -> None:
    config = pod_config("ports")
    ports = [free_port() for _ in range(2)]
    config.port_mappings.add(container_port=80, host_port=ports[0])
    config.port_mappings.add(container_port=80, host_port=ports[1], host_ip="127.0.0.1", protocol=cri.UDP)
    config.port_mappings.add(container_port=81, host_port=0)
    pod = driver.run(config)
    command = ("sh", "-c", "mkdir -p /site && echo served >/site/index.html && exec httpd -f -p 80 -h /site")
    container = driver.launch(pod, driver.config("web", command))
    url = f"http://{gateway(driver, pod)}:{ports[0]}/"

    def served() -> bool:
        try:
            return bool(urllib.request.urlopen(url, timeout=5).read() == b"served\n")
        except OSError:
            return False

    wait_until("the port of the node leads to the pod", served)
    rules = subprocess.run(["iptables-save", "-t", "nat"], capture_output=True, text=True, check=True).stdout
    told = [line for line in rules.splitlines() if f"--dport {ports[1]}" in line and "DNAT" in line]
    assert told and all("udp" in line and "127.0.0.1" in line for line in told)
    driver.stop(container)
    driver.stop_pod(pod)
    rules = subprocess.run(["iptables-save", "-t", "nat"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in rules.splitlines() if f"--dport {ports[0]}" in line]


@pytest.fixture
def template_stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack without a network configuration, but with a template for one."""
    ranges = '[{"subnet": "${POD_CIDR_V4}"}], [{"subnet": "${POD_CIDR_V6}"}]'
    name = f"tcidr{os.getpid()}"
    ipam = f'{{"type": "host-local", "dataDir": "{tmp_path}/ipam", "ranges": [{ranges}]}}'
    bridge = f'{{"type": "bridge", "bridge": "{name[:12]}0", "ipam": {ipam}}}'
    template = tmp_path / "template.conflist"
    template.write_text(f'{{"cniVersion": "1.0.0", "name": "{name}", "plugins": [{bridge}]}}')
    overrides = {"runtime": {"network": {"conf_template": str(template)}}}
    made = Stack(tmp_path / "stack", name, overrides=overrides)
    made.write_configuration()
    (made.root / "cni" / "10-test.conflist").unlink()
    try:
        made.start("image", "runtime")
        yield made
    finally:
        made.clean()


def test_the_pod_cidr_makes_a_template_the_network(template_stack: Stack) -> None:
    with template_stack.runtime() as stub:
        driver = Driver(stub, "")

        def network() -> tuple[bool, str]:
            conditions = stub.Status(cri.StatusRequest(), timeout=DEADLINE).status.conditions
            return next((c.status, c.message) for c in conditions if c.type == "NetworkReady")

        ready, message = network()
        assert not ready
        assert "cni config uninitialized" in message
        with pytest.raises(grpc.RpcError) as error:
            driver.run("early")
        assert "cni config uninitialized" in str(error.value)
        request = cri.UpdateRuntimeConfigRequest()
        request.runtime_config.network_config.pod_cidr = "10.90.0.0/33"
        with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
            stub.UpdateRuntimeConfig(request, timeout=DEADLINE)
        assert "10.90.0.0/33" in refusal.text
        request.runtime_config.network_config.pod_cidr = "10.90.0.0/24,fd00:90::/64"
        stub.UpdateRuntimeConfig(request, timeout=DEADLINE)
        wait_until("the network is ready", lambda: network()[0])
        pod = driver.run("dual")
        status = stub.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=pod.id), timeout=DEADLINE)
        assert status.status.network.ip.startswith("10.90.0.")
        assert [address.ip[:8] for address in status.status.network.additional_ips] == ["fd00:90:"]
        driver.clear()
