"""Capabilities, seccomp, AppArmor and SELinux."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runtime.v1 import api_pb2
from triptych_errors import FailedPrecondition, InvalidArgument, NotFound
from triptych_runtime.spec import (
    HandlerFeatures,
    HostFacts,
    apparmor,
    capabilities,
    profiles,
    seccomp,
    selinux,
)
from triptych_runtime.spec.capabilities import DEFAULT, KNOWN

Context = api_pb2.LinuxContainerSecurityContext
Profile = api_pb2.SecurityProfile
DATA = Path(__file__).parent / "spec_data"
WITHOUT_RESOURCE = tuple(name for name in KNOWN if name != "CAP_SYS_RESOURCE")


def caps(
    add: tuple[str, ...] = (), drop: tuple[str, ...] = (), ambient: tuple[str, ...] = (), **more: Any
) -> Context:
    wanted = api_pb2.Capability(
        add_capabilities=add, drop_capabilities=drop, add_ambient_capabilities=ambient
    )
    return Context(capabilities=wanted, **more)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (caps(), list(DEFAULT)),
        (caps(add=("net_admin",)), [*DEFAULT, "CAP_NET_ADMIN"]),
        (caps(add=("CAP_NET_ADMIN", "NET_ADMIN")), [*DEFAULT, "CAP_NET_ADMIN"]),
        (caps(drop=("CHOWN",)), [name for name in DEFAULT if name != "CAP_CHOWN"]),
        (caps(add=("ALL",)), list(WITHOUT_RESOURCE)),
        (caps(add=("all",), drop=("CHOWN",)), [n for n in WITHOUT_RESOURCE if n != "CAP_CHOWN"]),
        (caps(drop=("ALL",)), []),
        (caps(add=("KILL",), drop=("ALL",)), ["CAP_KILL"]),
        (caps(add=("ALL",), drop=("ALL",)), []),
        (caps(add=("SYS_TIME",), drop=("SYS_TIME",)), list(DEFAULT)),
        (caps(drop=("ALL",), privileged=True), list(WITHOUT_RESOURCE)),
    ],
)
def test_capability_sets(context: Context, expected: list[str]) -> None:
    sets = capabilities.build(context, WITHOUT_RESOURCE)
    assert sets == {"bounding": expected, "effective": expected, "permitted": expected}


def test_ambient_capabilities() -> None:
    sets = capabilities.build(caps(ambient=("NET_BIND_SERVICE",)), KNOWN)
    assert sets["ambient"] == sets["inheritable"] == ["CAP_NET_BIND_SERVICE"]
    everything = capabilities.build(caps(drop=("ALL",), add=("KILL",), ambient=("ALL",)), KNOWN)
    assert everything["ambient"] == ["CAP_KILL"]
    with pytest.raises(InvalidArgument, match="CAP_SYS_ADMIN is not among"):
        capabilities.build(caps(ambient=("SYS_ADMIN",)), KNOWN)


def test_capabilities_the_daemon_lacks() -> None:
    with pytest.raises(FailedPrecondition, match="CAP_SYS_RESOURCE"):
        capabilities.build(caps(add=("SYS_RESOURCE",)), WITHOUT_RESOURCE)
    mapped = capabilities.build(caps(add=("SYS_RESOURCE",)), WITHOUT_RESOURCE, user_namespace=True)
    assert "CAP_SYS_RESOURCE" in mapped["bounding"]
    assert capabilities.build(caps(), ("CAP_KILL",))["bounding"] == ["CAP_KILL"]


@pytest.mark.parametrize("field", ["add", "drop", "ambient"])
def test_unknown_capability(field: str) -> None:
    with pytest.raises(InvalidArgument, match="'NO_SUCH' is no Linux capability"):
        capabilities.validate(caps(**{field: ("NO_SUCH",)}).capabilities)


def test_names_of_mask() -> None:
    assert capabilities.names_of_mask(0xA80425FB) == tuple(name for name in KNOWN if name in DEFAULT)
    assert capabilities.names_of_mask(1 << 63) == ()


# Profiles by name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", None),
        ("runtime/default", profiles.Profile(Profile.RuntimeDefault)),
        ("docker/default", profiles.Profile(Profile.RuntimeDefault)),
        ("unconfined", profiles.Profile(Profile.Unconfined)),
        ("localhost/a/b.json", profiles.Profile(Profile.Localhost, "a/b.json")),
    ],
)
def test_deprecated_profile_strings(text: str, expected: profiles.Profile | None) -> None:
    assert profiles.seccomp_of(Context(seccomp_profile_path=text)) == expected
    assert profiles.apparmor_of(Context(apparmor_profile=text)) == expected


def test_the_typed_profile_wins() -> None:
    context = Context(
        seccomp=Profile(profile_type=Profile.Localhost, localhost_ref="localhost/x"),
        seccomp_profile_path="unconfined",
    )
    assert profiles.seccomp_of(context) == profiles.Profile(Profile.Localhost, "x")


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (Context(seccomp_profile_path="nonsense"), "'nonsense' is no profile"),
        (Context(seccomp_profile_path="localhost/"), "is no profile"),
        (Context(seccomp=Profile(profile_type=Profile.Localhost)), "localhost_ref is empty"),
        (Context(seccomp=Profile(localhost_ref="x")), "only for profile_type Localhost"),
        (Context(seccomp=Profile(profile_type=7)), "seccomp.profile_type: 7"),  # type: ignore[arg-type]
    ],
)
def test_bad_profiles(context: Context, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        profiles.seccomp_of(context)


# seccomp


def build_seccomp(
    context: Context, host: HostFacts, bounding: tuple[str, ...] = DEFAULT, root: Path = DATA
) -> dict[str, Any] | None:
    return seccomp.build(context, bounding, host, HandlerFeatures(), root)


DEFAULT_PROFILE = Context(seccomp=Profile(profile_type=Profile.RuntimeDefault))
HOST = HostFacts(seccomp_profile=DATA / "seccomp.json", seccomp_harden=False, machine="x86_64")


def test_seccomp_none() -> None:
    assert build_seccomp(Context(), HOST) is None
    assert build_seccomp(Context(seccomp=Profile(profile_type=Profile.Unconfined)), HOST) is None
    privileged = Context(seccomp=Profile(profile_type=Profile.RuntimeDefault), privileged=True)
    assert build_seccomp(privileged, replace(HOST, seccomp=False)) is None


def test_seccomp_conversion() -> None:
    profile = build_seccomp(DEFAULT_PROFILE, HOST)
    assert profile == {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            {"names": ["read", "clone", "mount"], "action": "SCMP_ACT_ALLOW"},
            {
                "names": ["personality"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}],
            },
            {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["oldname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 22},
        ],
    }


def test_seccomp_conditions() -> None:
    def names(host: HostFacts, bounding: tuple[str, ...] = DEFAULT) -> list[list[str]]:
        profile = build_seccomp(DEFAULT_PROFILE, host, bounding)
        assert profile is not None
        return [[rule["action"], *rule["names"]] for rule in profile["syscalls"]]

    assert ["SCMP_ACT_ALLOW", "bpf"] in names(HOST, ("CAP_SYS_ADMIN",))
    assert ["SCMP_ACT_ERRNO", "bpf"] not in names(HOST, ("CAP_SYS_ADMIN",))
    assert ["SCMP_ACT_ALLOW", "ptrace"] not in names(replace(HOST, kernel=(4, 7)))
    assert ["SCMP_ACT_ALLOW", "ptrace"] in names(replace(HOST, kernel=(4, 8)))
    arm = replace(HOST, machine="aarch64")
    assert ["SCMP_ACT_ALLOW", "arch_prctl"] not in names(arm)
    profile = build_seccomp(DEFAULT_PROFILE, arm)
    assert profile is not None
    assert profile["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]


def test_seccomp_hardening() -> None:
    hard = replace(HOST, seccomp_harden=True)
    profile = build_seccomp(DEFAULT_PROFILE, hard)
    assert profile is not None
    by_name = {name: rule for rule in profile["syscalls"] for name in rule["names"]}
    assert by_name["clone"]["args"] == [
        {"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    ]
    assert by_name["clone3"]["errnoRet"] == 38
    assert by_name["mount"]["errnoRet"] == by_name["unshare"]["errnoRet"] == 1
    assert by_name["read"]["action"] == "SCMP_ACT_ALLOW"
    soft = build_seccomp(DEFAULT_PROFILE, hard, ("CAP_SYS_ADMIN",))
    assert soft is not None
    assert soft["syscalls"][0]["names"] == ["read", "clone", "mount"]


def test_seccomp_of_the_distribution() -> None:
    path = Path("/usr/share/containers/seccomp.json")
    if not path.exists():
        pytest.skip("containers-common is not installed")
    profile = build_seccomp(DEFAULT_PROFILE, HostFacts(machine="x86_64"))
    assert profile is not None
    allowed = {name for r in profile["syscalls"] if r["action"] == "SCMP_ACT_ALLOW" for name in r["names"]}
    assert {"read", "execve", "openat2", "clone"} <= allowed
    assert not {"unshare", "mount", "setns", "bpf"} & allowed


def localhost(reference: str) -> Context:
    return Context(seccomp=Profile(profile_type=Profile.Localhost, localhost_ref=reference))


def test_seccomp_localhost(tmp_path: Path) -> None:
    document = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{"name": "chmod", "action": "SCMP_ACT_ERRNO", "errnoRet": 0}],
    }
    (tmp_path / "p.json").write_text(json.dumps(document))
    expected = {
        **document,
        "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0}],
    }
    assert build_seccomp(localhost("p.json"), HOST, root=tmp_path) == expected
    assert build_seccomp(localhost(str(tmp_path / "p.json")), HOST) == expected


def test_seccomp_refusals(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"none\.json does not exist"):
        build_seccomp(localhost("none.json"), HOST, root=tmp_path)
    with pytest.raises(InvalidArgument, match="leaves its directory"):
        build_seccomp(localhost("../p.json"), HOST, root=tmp_path)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(InvalidArgument, match="is not a profile"):
        build_seccomp(localhost("bad.json"), HOST, root=tmp_path)
    (tmp_path / "both.json").write_text(
        '{"defaultAction": "X", "architectures": ["a"], "archMap": [{"architecture": "b"}]}'
    )
    with pytest.raises(InvalidArgument, match="both architectures and archMap"):
        build_seccomp(localhost("both.json"), HOST, root=tmp_path)
    rules = '[{"action": "SCMP_ACT_ERRNO", "name": "mkdir", "names": ["rmdir"]}]'
    (tmp_path / "names.json").write_text(f'{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {rules}}}')
    with pytest.raises(InvalidArgument, match="both name and names: mkdir"):
        build_seccomp(localhost("names.json"), HOST, root=tmp_path)
    (tmp_path / "directory").mkdir()
    with pytest.raises(InvalidArgument, match=r"seccomp: .*directory cannot be read"):
        build_seccomp(localhost("directory"), HOST, root=tmp_path)
    with pytest.raises(NotFound, match="does not exist"):
        build_seccomp(localhost("bad.json/below"), HOST, root=tmp_path)
    with pytest.raises(FailedPrecondition, match="RuntimeDefault.*cannot be read"):
        build_seccomp(DEFAULT_PROFILE, replace(HOST, seccomp_profile=tmp_path / "directory"))
    with pytest.raises(FailedPrecondition, match="does not exist.*containers-common"):
        build_seccomp(DEFAULT_PROFILE, replace(HOST, seccomp_profile=tmp_path / "none"))
    with pytest.raises(FailedPrecondition, match="the kernel has no seccomp"):
        build_seccomp(DEFAULT_PROFILE, replace(HOST, seccomp=False))


def test_a_seccomp_rule_without_calls_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_ERRNO", "names": []}]}'
    )
    assert build_seccomp(localhost("p.json"), HOST, root=tmp_path) == {"defaultAction": "SCMP_ACT_ALLOW"}


def test_seccomp_sees_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    assert build_seccomp(localhost("p.json"), HOST, root=tmp_path) == {"defaultAction": "SCMP_ACT_ALLOW"}
    path.write_text('{"defaultAction": "SCMP_ACT_LOG"}')
    os.utime(path, ns=(1, 1))
    assert build_seccomp(localhost("p.json"), HOST, root=tmp_path) == {"defaultAction": "SCMP_ACT_LOG"}


# AppArmor


@pytest.fixture
def confined(tmp_path: Path) -> HostFacts:
    path = tmp_path / "profiles"
    path.write_text("triptych-default (enforce)\nmy profile (complain)\n")
    return HostFacts(apparmor=True, apparmor_profiles=path)


def armor(context: Context, host: HostFacts, default: str = "triptych-default") -> str:
    return apparmor.profile_name(context, host, HandlerFeatures(name="crun"), default)


@pytest.mark.parametrize(
    ("context", "expected"),
    [
        (Context(), "triptych-default"),
        (Context(privileged=True), "unconfined"),
        (Context(apparmor=Profile(profile_type=Profile.RuntimeDefault)), "triptych-default"),
        (Context(apparmor=Profile(profile_type=Profile.Unconfined)), "unconfined"),
        (Context(apparmor_profile="localhost/my profile"), "my profile"),
        (Context(apparmor_profile="localhost/my profile", privileged=True), "my profile"),
    ],
)
def test_apparmor(confined: HostFacts, context: Context, expected: str) -> None:
    assert armor(context, confined) == expected


def test_apparmor_profiles_that_are_not_loaded(confined: HostFacts) -> None:
    assert armor(Context(), confined, "gone") == ""
    with pytest.raises(NotFound, match="'gone' is not loaded"):
        armor(Context(apparmor_profile="runtime/default"), confined, "gone")
    with pytest.raises(NotFound, match="'none' is not loaded"):
        armor(Context(apparmor_profile="localhost/none"), confined)


def test_a_kernel_without_apparmor() -> None:
    host = HostFacts()
    assert armor(Context(), host) == ""
    assert armor(Context(apparmor_profile="unconfined"), host) == ""
    for text in ("runtime/default", "localhost/x"):
        with pytest.raises(FailedPrecondition, match="the kernel has no AppArmor"):
            armor(Context(apparmor_profile=text), host)


# SELinux


def test_selinux_labels() -> None:
    none = api_pb2.SELinuxOption()
    pod = selinux.pod_labels(none, "a" * 64)
    assert pod.process.startswith("system_u:system_r:container_t:s0:c")
    assert pod.mount.startswith("system_u:object_r:container_file_t:s0:c")
    assert pod.process.split(":", 3)[3] == pod.mount.split(":", 3)[3]
    assert pod == selinux.pod_labels(none, "a" * 64)
    assert pod != selinux.pod_labels(none, "b" * 64)
    assert selinux.container_labels(None, pod) == pod
    assert selinux.container_labels(none, pod) == pod


def test_selinux_options() -> None:
    options = api_pb2.SELinuxOption(user="u", role="r", type="spc_t", level="s0:c1,c2")
    assert selinux.pod_labels(options, "x") == selinux.Labels(
        "u:r:spc_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2"
    )
    pod = selinux.Labels("system_u:system_r:container_t:s0:c5,c6", "system_u:object_r:file_t:s0:c5,c6")
    assert selinux.container_labels(api_pb2.SELinuxOption(type="my_t"), pod).process == (
        "system_u:system_r:my_t:s0:c5,c6"
    )


@pytest.mark.parametrize("level", ["s0", "s0-s1", "s0:c1", "s0:c1,c2", "s0:c1.c3,c5", "s15:c0.c1023"])
def test_selinux_levels(level: str) -> None:
    selinux.validate(api_pb2.SELinuxOption(level=level))


@pytest.mark.parametrize("level", ["0", "s", "s0:", "s0:c12345", "s0:c1,", "s0 ", "s0:c1;x"])
def test_bad_selinux_levels(level: str) -> None:
    with pytest.raises(InvalidArgument, match="level"):
        selinux.validate(api_pb2.SELinuxOption(level=level))


def test_selinux_parts_cannot_smuggle() -> None:
    with pytest.raises(InvalidArgument, match=r"selinux_options\.type"):
        selinux.validate(api_pb2.SELinuxOption(type="a:b"))


def test_selinux_policy_file(tmp_path: Path) -> None:
    assert selinux.contexts(tmp_path) == selinux.DEFAULT
    (tmp_path / "config").write_text("# comment\nSELINUXTYPE=mls\n")
    (tmp_path / "mls/contexts").mkdir(parents=True)
    (tmp_path / "mls/contexts/lxc_contexts").write_text(
        'process = "system_u:system_r:svirt_t:s0"\nfile = "system_u:object_r:svirt_file_t:s0"\n'
    )
    assert selinux.contexts(tmp_path) == selinux.Labels(
        "system_u:system_r:svirt_t:s0", "system_u:object_r:svirt_file_t:s0"
    )
