"""The last thing before the reboot: a pod stays behind, and its node remembers which."""

from __future__ import annotations

import subprocess

from runtime.v1 import api_pb2 as cri
from triptych_dev.vm.inside import Node


def test_leave_a_pod_for_the_reboot(node: Node) -> None:
    sandbox = node.run_pod("survivor")
    container = node.run_container(sandbox, "main")
    status = node.call("PodSandboxStatus", cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox[0])).status
    node.facts |= {"sandbox": sandbox[0], "container": container, "ip": status.network.ip}
    node.save()
    subprocess.run(["sync"], check=True)
