"""The node after a reboot with a pod on it; then it is taken apart."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.vm.inside import DAEMONS, Node, eventually, systemctl

RULE = re.compile(r"triptych|cbr0|-j (CNI|DNAT|MASQUERADE)|dnat to|masquerade")


def test_the_daemons_came_back() -> None:
    for daemon in DAEMONS:
        unit = f"triptych-{daemon}.service"
        eventually(functools.partial(_active, unit))


def _active(unit: str) -> bool:
    return systemctl("show", "-P", "ActiveState", unit) == "active"


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


def rules() -> list[str]:
    """Every packet rule and table of ours, or of a pod's port."""
    commands = (["iptables-save"], ["ip6tables-save"], ["nft", "list", "ruleset"])
    said = [subprocess.run(argv, capture_output=True, text=True, check=True).stdout for argv in commands]
    return [line for line in "\n".join(said).splitlines() if RULE.search(line)]


def test_a_port_of_the_node(node: Node) -> None:
    """The masquerade is loaded with the default network; a host port has rules while its pod runs."""
    assert systemctl("is-active", "triptych-nat.service") == "active"
    before = rules()
    assert any("triptych_nat" in line for line in before)
    sandbox = node.run_pod("port", ports={18080: 8080})
    command = ("sh", "-c", "httpd -f -p 8080 -h /www")
    node.run_container(sandbox, "main", command)
    address = f"http://{_own_address()}:18080/index.html"
    eventually(lambda: "hello from triptych" in _fetch(address))
    assert len(rules()) > len(before)
    node.remove_pod(sandbox[0])
    assert _fetch(address) == ""


@pytest.mark.parametrize("verbs", [["start"], ["reload"], ["restart"], ["stop", "start"]], ids="-".join)
def test_the_masquerade_comes_back_after_nftables(verbs: list[str]) -> None:
    """Each loads /etc/nftables.conf, which flushes all tables; Debian has the unit off at first."""
    for verb in verbs:
        subprocess.run(["systemctl", verb, "nftables.service"], check=True)
    listing = ["nft", "list", "table", "inet", "triptych_nat"]
    eventually(lambda: subprocess.run(listing, capture_output=True).returncode == 0)
    eventually(lambda: _active("triptych-nat.service"))


def _own_address() -> str:
    """Of the node on the bridge of the pods."""
    argv = ["ip", "-4", "-brief", "address", "show", "triptych0"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[2].split("/")[0]


def _fetch(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


def test_uninstall_leaves_nothing(node: Node) -> None:
    node.run_container(node.run_pod("last", ports={18080: 8080}), "main")
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
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in links.splitlines() if not line.startswith(("lo ", "eth0 "))] == []
    assert rules() == []
    assert [path.name for path in Path("/run/netns").glob("*")] == []
