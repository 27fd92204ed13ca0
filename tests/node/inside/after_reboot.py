"""The node after a reboot with a pod on it; then it is taken apart."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

from runtime.v1 import api_pb2 as cri
from triptych_dev.vm.inside import DAEMONS, Node, eventually, systemctl


def test_the_daemons_came_back() -> None:
    for daemon in DAEMONS:
        unit = f"triptych-{daemon}.service"
        eventually(functools.partial(_active, unit))


def _active(unit: str) -> bool:
    return systemctl("is-active", unit) == "active"


def test_what_ran_is_exited_and_its_address_free(node: Node) -> None:
    status = node.status(node.facts["container"])
    assert status.state == cri.CONTAINER_EXITED
    assert status.exit_code != 0 and status.finished_at > 0
    pod = cri.PodSandboxStatusRequest(pod_sandbox_id=node.facts["sandbox"])
    assert node.call("PodSandboxStatus", pod).status.state == cri.SANDBOX_NOTREADY
    assert not list(Path("/run/triptych/ipam").glob(f"*/{node.facts['ip']}"))


def test_the_image_is_whole_and_a_pod_runs(node: Node) -> None:
    sandbox = node.run_pod("again")
    container = node.run_container(sandbox, "main")
    assert node.exec(container, "cat", "/www/index.html").strip() == "hello from triptych"
    node.remove_pod(sandbox[0])


def test_the_old_pod_can_be_removed(node: Node) -> None:
    node.remove_pod(node.facts["sandbox"])
    assert not node.call("ListPodSandbox", cri.ListPodSandboxRequest()).items
    assert not node.call("ListContainers", cri.ListContainersRequest()).containers


def test_uninstall_leaves_nothing(node: Node) -> None:
    node.run_container(node.run_pod("last"), "main")
    done = subprocess.run(
        [sys.executable, "-m", "triptych_dev", "uninstall"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing is left" in done.stdout
    for path in ("/opt/triptych", "/etc/triptych", "/var/lib/triptych", "/run/triptych"):
        assert not Path(path).exists()
    units = subprocess.run(["systemctl", "list-unit-files", "triptych*"], capture_output=True, text=True)
    assert "triptych-runtime" not in units.stdout
    assert not list(Path("/sys/fs/cgroup").glob("**/triptych-*.scope"))
    assert "triptych" not in Path("/proc/self/mountinfo").read_text().replace("triptych-node", "")
