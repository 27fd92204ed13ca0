"""What a pod gives to plugins: capability arguments (CNI conventions) and CNI_ARGS."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from triptych_runtime.network.errors import AnnotationInvalid
from triptych_runtime.network.model import PodAttachment

INGRESS = "kubernetes.io/ingress-bandwidth"
EGRESS = "kubernetes.io/egress-bandwidth"

# The kubelet's bounds of a bandwidth, in bits a second, and its burst for all (kubenet's MaxInt32).
_LEAST, _MOST = 10**3, 10**15
_BURST = (1 << 31) - 1

_QUANTITY = re.compile(
    r"([+-]?[0-9]+(?:\.[0-9]*)?|[+-]?\.[0-9]+)(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?"
)
_DECIMAL = {"m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def quantity(text: str) -> Decimal:
    """A Kubernetes quantity.

    :raises ValueError: when it is none.
    """
    found = _QUANTITY.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a quantity such as 10M")
    value, suffix = Decimal(found[1]), found[2] or ""
    if suffix in _BINARY:
        return value * (1 << _BINARY[suffix])
    exponent = _DECIMAL.get(suffix)
    return value.scaleb(int(suffix[1:]) if exponent is None else exponent)


def bandwidth(annotations: dict[str, str]) -> dict[str, int] | None:
    """The `bandwidth` argument of a pod's annotations; None when it has none.

    :raises AnnotationInvalid: for one that is no quantity, or out of range.
    """
    argument: dict[str, int] = {}
    for name, key in ((INGRESS, "ingress"), (EGRESS, "egress")):
        if not (text := annotations.get(name)):
            continue
        try:
            rate = quantity(text)
        except (ValueError, ArithmeticError):
            raise AnnotationInvalid(f"annotation {name}: {text!r} is not a quantity such as 10M") from None
        if not _LEAST <= rate <= _MOST:
            raise AnnotationInvalid(f"annotation {name}: {text} is not between 1k and 1P")
        argument |= {f"{key}Rate": int(rate), f"{key}Burst": _BURST}
    return argument or None


def capability_arguments(pod: PodAttachment, ranges: Sequence[Sequence[dict[str, str]]]) -> dict[str, Any]:
    """Everything that this pod can give to a plugin that asks for it; without what it has not.

    :param ranges: the node's pod subnets, as host-local takes them.
    :raises AnnotationInvalid: see `bandwidth`.
    """
    ports = [
        {
            "hostPort": mapping.host_port,
            "containerPort": mapping.container_port,
            "protocol": mapping.protocol.lower(),
            "hostIP": mapping.host_ip,
        }
        for mapping in pod.port_mappings
        if mapping.host_port > 0
    ]
    dns = {"servers": pod.dns.servers, "searches": pod.dns.searches, "options": pod.dns.options}
    arguments: dict[str, Any] = {
        "portMappings": ports,
        "bandwidth": bandwidth(pod.annotations),
        "ipRanges": ranges,
        "ips": pod.ips,
        "mac": pod.mac,
        "dns": dns if any(dns.values()) else None,
        "aliases": pod.aliases,
        "cgroupPath": pod.cgroup_parent,
        "io.kubernetes.cri.pod-annotations": pod.annotations,
    }
    return {name: value for name, value in arguments.items() if value}


def cni_args(pod: PodAttachment) -> str:
    """CNI_ARGS by the names that plugins know since the kubelet itself ran them."""
    pairs = {
        "IgnoreUnknown": "1",
        "K8S_POD_NAMESPACE": pod.namespace,
        "K8S_POD_NAME": pod.name,
        "K8S_POD_INFRA_CONTAINER_ID": pod.sandbox_id,
        "K8S_POD_UID": pod.uid,
    }
    return ";".join(f"{key}={value}" for key, value in pairs.items())
