"""The built-in validator's rules."""

from __future__ import annotations

from typing import Any

import pytest
from nri.v1alpha1 import nri_pb2
from nri.v1alpha1.nri_pb2 import ContainerAdjustment, Field, SecurityProfile
from triptych_runtime.nri.merge import CreateMerge
from triptych_runtime.nri.settings import ValidatorSettings
from triptych_runtime.nri.validate import effective_annotation, validate

REQUIRED = "required-plugins.noderesource.dev"
TOLERATE = "tolerate.example.org"


def request(
    *adjusted: tuple[str, ContainerAdjustment],
    annotations: dict[str, str] | None = None,
    linux: nri_pb2.LinuxContainer | None = None,
) -> nri_pb2.ValidateContainerAdjustmentRequest:
    """What two plugins, 10-a and 20-b, were asked, and what they answered."""
    container = nri_pb2.Container(id="c", name="main", linux=linux)
    pod = nri_pb2.PodSandbox(annotations=annotations)
    merge = CreateMerge(nri_pb2.CreateContainerRequest(pod=pod, container=container))
    for plugin, adjustment in adjusted:
        merge.apply(nri_pb2.CreateContainerResponse(adjust=adjustment), plugin)
    return merge.validation(nri_pb2.PluginInstance(name=n, index=i) for i, n in (("10", "a"), ("20", "b")))


def linux(**fields: Any) -> ContainerAdjustment:
    return ContainerAdjustment(linux=nri_pb2.LinuxContainerAdjustment(**fields))


HOOKS = ContainerAdjustment(hooks=nri_pb2.Hooks(poststop=[nri_pb2.Hook(path="/h")]))
SECCOMP = linux(seccomp_policy=nri_pb2.LinuxSeccomp(default_action="SCMP_ACT_ALLOW"))
SYSCTL = linux(sysctl={"kernel.x": "1"})
NAMESPACE = linux(namespaces=[nri_pb2.LinuxNamespace(type="-ipc")])


def test_nothing_is_rejected_unless_told() -> None:
    everything = [("10-a", adjustment) for adjustment in (HOOKS, SECCOMP, SYSCTL, NAMESPACE)]
    assert validate(ValidatorSettings(), request(*everything)) == ""


def test_nothing_adjusted_is_not_rejected() -> None:
    strict = ValidatorSettings(
        reject_oci_hook_adjustment=True,
        reject_runtime_default_seccomp_adjustment=True,
        reject_unconfined_seccomp_adjustment=True,
        reject_custom_seccomp_adjustment=True,
        reject_namespace_adjustment=True,
        reject_sysctl_adjustment=True,
    )
    asked = request()
    before = asked.SerializeToString()
    assert validate(strict, asked) == ""
    assert asked.SerializeToString() == before


def test_hooks() -> None:
    rules = ValidatorSettings(reject_oci_hook_adjustment=True)
    assert validate(rules, request(("10-a", HOOKS))) == 'OCI hooks may not be added: plugin "10-a"'
    both = request(("10-a", HOOKS), ("20-b", HOOKS))
    assert validate(rules, both) == 'OCI hooks may not be added: plugins "10-a", "20-b"'
    assert validate(rules, request(("10-a", SYSCTL))) == ""


@pytest.mark.parametrize(
    ("kind", "setting", "told"),
    [
        (None, "unconfined", "unconfined"),
        (SecurityProfile.UNCONFINED, "unconfined", "unconfined"),
        (SecurityProfile.RUNTIME_DEFAULT, "runtime_default", "runtime default"),
        (SecurityProfile.LOCALHOST, "custom", "custom"),
    ],
)
def test_seccomp_by_the_profile_that_was_asked_for(kind: Any, setting: str, told: str) -> None:
    profile = None if kind is None else SecurityProfile(profile_type=kind)
    asked = request(("10-a", SECCOMP), linux=nri_pb2.LinuxContainer(seccomp_profile=profile))
    for candidate in ("unconfined", "runtime_default", "custom"):
        rules = ValidatorSettings(**{f"reject_{candidate}_seccomp_adjustment": True})  # type: ignore[arg-type]
        why = f'the {told} seccomp policy may not be adjusted: plugin "10-a"'
        assert validate(rules, asked) == (why if candidate == setting else "")


def test_namespaces_and_sysctls() -> None:
    rules = ValidatorSettings(reject_namespace_adjustment=True, reject_sysctl_adjustment=True)
    why = validate(rules, request(("10-a", NAMESPACE)))
    assert why == 'namespaces may not be adjusted: plugins "10-a" (namespace "ipc")'
    why = validate(rules, request(("10-a", SYSCTL)))
    assert why == 'sysctls may not be adjusted: plugins "10-a" (sysctl "kernel.x")'
    removed = linux(sysctl={"-kernel.x": ""})
    asked = request(("10-a", SYSCTL), ("20-b", removed))
    assert asked.owners.owners["c"].compound[Field.Sysctl].owners["kernel.x"] == "-20-b"
    assert validate(rules, asked) == ""


@pytest.mark.parametrize("required", [("a",), ("10-a", "b"), ("20-b",)])
def test_required_plugins_that_were_asked(required: tuple[str, ...]) -> None:
    assert validate(ValidatorSettings(required_plugins=required), request()) == ""


def test_required_plugins_that_were_not() -> None:
    why = validate(ValidatorSettings(required_plugins=("a", "c")), request())
    assert why == 'required but not present: plugin "c"'
    annotated = request(annotations={REQUIRED: "[b, 10-b, c]"})
    why = validate(ValidatorSettings(required_plugins=("c", "d")), annotated)
    assert why == 'required but not present: plugins "c", "d", "10-b"'


@pytest.mark.parametrize("text", ["- a\n- b", '["a", "20-b"]', "", "~"])
def test_required_by_annotation(text: str) -> None:
    assert validate(ValidatorSettings(), request(annotations={REQUIRED: text})) == ""


@pytest.mark.parametrize("text", ["a", "{a: b}", "[[a]]", "[a", "- a: b"])
def test_no_list_of_plugins(text: str) -> None:
    assert "is no list of plugins" in validate(ValidatorSettings(), request(annotations={REQUIRED: text}))


def test_the_nearest_annotation_counts() -> None:
    pod = nri_pb2.PodSandbox(annotations={"k": "plain", "k/pod": "pod", "k/container.main": "main"})
    assert effective_annotation(pod, "k", "main") == "main"
    assert effective_annotation(pod, "k", "other") == "pod"
    assert effective_annotation(nri_pb2.PodSandbox(annotations={"k": "plain"}), "k", "main") == "plain"
    assert effective_annotation(pod, "other", "main") is None


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("true", ""),
        ("1", ""),
        ("False", 'required but not present: plugin "c"'),
        ("yes", f"annotation {TOLERATE}: 'yes' is neither true nor false"),
    ],
)
def test_missing_plugins_tolerated(value: str, why: str) -> None:
    rules = ValidatorSettings(required_plugins=("c",), tolerate_missing_plugins_annotation=TOLERATE)
    assert validate(rules, request(annotations={f"{TOLERATE}/container.main": value})) == why
    assert "not present" in validate(rules, request(annotations={f"{TOLERATE}/container.other": value}))
