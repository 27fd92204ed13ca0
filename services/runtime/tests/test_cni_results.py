"""Results of plugins of all versions, and the arguments that pods give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from triptych_runtime.network import PodAttachment, PodDns, PortMapping, _arguments, _results
from triptych_runtime.network.errors import AnnotationInvalid, ResultInvalid
from triptych_runtime.network.settings import IpPreference

V1 = {
    "cniVersion": "1.0.0",
    "interfaces": [
        {"name": "br0", "mac": "aa:aa:aa:aa:aa:aa"},
        {"name": "eth0", "mac": "bb:bb:bb:bb:bb:bb", "sandbox": "/run/ns"},
    ],
    "ips": [
        {"address": "fd00::2/64", "gateway": "fd00::1", "interface": 1},
        {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1},
        {"address": "10.1.0.1/24", "interface": 0},
    ],
    "routes": [{"dst": "0.0.0.0/0"}],
}


def ips(result: dict[str, Any], preference: IpPreference = IpPreference.IPV4) -> list[str]:
    return _results.summarise([("net", "eth0", result)], preference).ips


def test_addresses_are_those_of_the_pod_in_the_preferred_order() -> None:
    assert ips(V1) == ["10.1.0.2", "fd00::2"]
    assert ips(V1, IpPreference.IPV6) == ["fd00::2", "10.1.0.2"]
    assert ips(V1, IpPreference.CNI) == ["fd00::2", "10.1.0.2"]


def test_interfaces_carry_their_addresses() -> None:
    summary = _results.summarise([("net", "eth0", V1)], IpPreference.IPV4)
    assert [(i.name, i.addresses) for i in summary.interfaces] == [
        ("br0", ("10.1.0.1/24",)),
        ("eth0", ("fd00::2/64", "10.1.0.2/24")),
    ]
    assert summary.raw["net"]["cniVersion"] == "1.1.0"


def test_old_results() -> None:
    v04 = {"cniVersion": "0.4.0", "ips": [{"version": "4", "address": "10.1.0.2/24"}]}
    assert ips(v04) == ["10.1.0.2"]
    v02 = {"cniVersion": "0.2.0", "ip4": {"ip": "10.1.0.3/24", "routes": [{"dst": "0.0.0.0/0"}]}}
    assert ips(v02) == ["10.1.0.3"]
    assert ips({"ip6": {"ip": "fd00::3/64"}}) == ["fd00::3"]


def test_null_is_as_good_as_nothing_said() -> None:
    """Plugins that are not written with the reference library say it, which reads it so."""
    eth0 = {"name": "eth0", "mac": None, "sandbox": "/run/ns"}
    address = {"address": "10.1.0.2/24", "gateway": None, "interface": 0}
    result = {"cniVersion": "1.0.0", "interfaces": [eth0], "ips": [address], "routes": None, "dns": None}
    assert ips(result) == ["10.1.0.2"]
    assert ips({"cniVersion": None, "interfaces": None, "ips": [{"address": "10.1.0.2/24"}]}) == ["10.1.0.2"]
    assert ips({"ip4": {"ip": "10.1.0.3/24", "routes": None}, "ip6": None, "dns": {"search": None}}) == [
        "10.1.0.3"
    ]


def test_a_result_given_on_to_an_older_version() -> None:
    newest = {
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mtu": 1400, "sandbox": "/x", "pciID": "0000:00:1"}],
        "ips": [{"address": "fd00::2/64", "interface": 0}],
        "routes": [{"dst": "::/0", "mtu": 1400, "gw": "fd00::1"}],
    }
    assert _results.for_version(newest, "1.1.0") is newest
    older = _results.for_version(newest, "0.4.0")
    assert older["cniVersion"] == "0.4.0"
    assert older["interfaces"] == [{"name": "eth0", "sandbox": "/x"}]
    assert older["ips"] == [{"address": "fd00::2/64", "interface": 0, "version": "6"}]
    assert older["routes"] == [{"dst": "::/0", "gw": "fd00::1"}]


@pytest.mark.parametrize(
    "result",
    [
        {"cniVersion": "7.0.0"},
        {"ips": [{"address": "not an address"}]},
        {"ips": [{"address": "10.0.0.1/24", "interface": 3}]},
        {"ips": "none"},
        {"ips": []},
    ],
)
def test_bad_results_are_refused(result: dict[str, Any]) -> None:
    with pytest.raises(ResultInvalid, match="network 'net'"):
        ips(result)


def pod(**extra: Any) -> PodAttachment:
    return PodAttachment(
        sandbox_id="abc", netns=Path("/run/ns"), name="web", namespace="prod", uid="u-1", **extra
    )


def test_arguments_of_a_pod() -> None:
    arguments = _arguments.capability_arguments(
        pod(
            port_mappings=(
                PortMapping(80, 8080, "TCP", "127.0.0.1"),
                PortMapping(81, 0),
            ),
            annotations={_arguments.INGRESS: "10M", _arguments.EGRESS: "1Gi"},
            dns=PodDns(("10.0.0.10",), ("svc.cluster.local",), ("ndots:5",)),
            cgroup_parent="/kubepods/pod1",
            mac="02:00:00:00:00:01",
        ),
        [[{"subnet": "10.1.0.0/24"}]],
    )
    assert arguments["portMappings"] == [
        {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"}
    ]
    burst = (1 << 31) - 1
    assert arguments["bandwidth"] == {
        "ingressRate": 10_000_000,
        "ingressBurst": burst,
        "egressRate": 1 << 30,
        "egressBurst": burst,
    }
    assert arguments["ipRanges"] == [[{"subnet": "10.1.0.0/24"}]]
    assert arguments["dns"]["options"] == ("ndots:5",)
    assert arguments["cgroupPath"] == "/kubepods/pod1"
    assert "ips" not in arguments
    assert _arguments.capability_arguments(pod(), []) == {}


def test_cni_args() -> None:
    assert _arguments.cni_args(pod()) == (
        "IgnoreUnknown=1;K8S_POD_NAMESPACE=prod;K8S_POD_NAME=web;"
        "K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=u-1"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [("10M", 10**7), ("1.5k", 1500), ("2e3", 2000), ("1Ki", 1024), ("500", 500), ("5E", 5 * 10**18)],
)
def test_quantities(text: str, value: int) -> None:
    assert _arguments.quantity(text) == value


@pytest.mark.parametrize("text", ["", "M", "10 M", "ten", "1", "2P", "-5M", "1e99"])
def test_bad_bandwidth_names_the_annotation(text: str) -> None:
    if not text:
        assert _arguments.bandwidth({_arguments.INGRESS: ""}) is None
        return
    with pytest.raises(AnnotationInvalid, match="kubernetes.io/ingress-bandwidth"):
        _arguments.bandwidth({_arguments.INGRESS: text})
