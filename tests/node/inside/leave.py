"""The last thing before the reboot: a pod stays behind, and its node remembers which."""

from __future__ import annotations

import subprocess

from runtime.v1 import api_pb2 as cri
from triptych_dev.vm.inside import SLEEP, Node


def test_leave_a_pod_for_the_reboot(node: Node) -> None:
    sandbox = node.run_pod("survivor")
    # However it ends, by the node's going down or with it, it is no success.
    container = node.run_container(sandbox, "main", ("sh", "-c", SLEEP[2].replace("exit 0", "exit 7")))
    status = node.call("PodSandboxStatus", cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox[0])).status
    node.facts |= {"sandbox": sandbox[0], "container": container, "ip": status.network.ip}
    node.save()
    subprocess.run(["sync"], check=True)
