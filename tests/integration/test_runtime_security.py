"""What containers may do, by privileges, capabilities and profiles."""

from __future__ import annotations

import stat
from functools import partial
from pathlib import Path

import grpc
import pytest
from runtime.v1 import api_pb2 as cri
from triptych_dev.kubelet import pod_config
from triptych_dev.testing.driver import Driver, refused, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def test_privileges(driver: Driver) -> None:
    config = pod_config("privileges")
    config.linux.security_context.privileged = True
    pod = driver.run(config)
    one = driver.config("one")
    context = one.linux.security_context
    context.run_as_user.value = 1000
    context.capabilities.drop_capabilities.append("ALL")
    context.capabilities.add_capabilities.append("NET_BIND_SERVICE")
    context.capabilities.add_ambient_capabilities.append("NET_BIND_SERVICE")
    context.no_new_privs = True
    context.readonly_rootfs = True
    container = driver.launch(pod, one)
    status = driver.output(container, "cat", "/proc/1/status")
    values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(values["CapAmb"], 16) == int(values["CapEff"], 16) == 1 << 10
    assert values["NoNewPrivs"] == "1"
    driver.output(container, "touch", "/x", code=1)
    free = driver.config("free")
    free.linux.security_context.privileged = True
    container = driver.launch(pod, free)
    own = Path("/proc/self/status").read_text()
    bounding = next(line.split()[1] for line in own.splitlines() if line.startswith("CapBnd"))
    status = driver.output(container, "grep", "CapEff", "/proc/1/status")
    assert int(status.split()[1], 16) == int(bounding, 16)
    normal = driver.run("normal")
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        driver.create(normal, free)
    assert "privileged" in refusal.text


def test_documents_are_private(driver: Driver) -> None:
    pod = driver.run("private")
    container = driver.launch(pod, driver.config("app", env={"SECRET": "x"}))
    document = Path(driver.container_info(container)["bundle"]) / "config.json"
    assert stat.S_IMODE(document.stat().st_mode) == 0o600


def test_profiles_old_and_new(driver: Driver, tmp_path: Path) -> None:
    pod = driver.run("profiles")
    profile = tmp_path / "profile.json"
    rules = '[{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]'
    profile.write_text(f'{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {rules}}}')
    for old, mode in (("unconfined", "0"), ("runtime/default", "2"), (f"localhost/{profile}", "2")):
        config = driver.config(f"old-{mode}-{len(old)}")
        config.linux.security_context.seccomp_profile_path = old
        container = driver.launch(pod, config)
        assert driver.output(container, "grep", "Seccomp:", "/proc/1/status").split()[1] == mode, old
    driver.output(container, "mkdir", "/x", code=1)
    deprecated, typed = driver.config("armoured"), driver.config("armoured")
    deprecated.linux.security_context.apparmor_profile = "localhost/no-such-profile"
    typed.linux.security_context.apparmor.profile_type = cri.SecurityProfile.Localhost
    typed.linux.security_context.apparmor.localhost_ref = "no-such-profile"
    for config in (deprecated, typed):
        with pytest.raises(grpc.RpcError) as error:
            driver.create(pod, config)
        assert error.value.code() in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)
        assert "apparmor" in str(error.value).lower()
    config = driver.config("labelled")
    config.linux.security_context.selinux_options.level = "not a level"
    with refused(grpc.StatusCode.INVALID_ARGUMENT) as refusal:
        driver.create(pod, config)
    assert "level" in refusal.text
    for field in ("seccomp", "apparmor"):
        bad = pod_config("bad")
        getattr(bad.linux.security_context, field).profile_type = cri.SecurityProfile.Localhost
        with pytest.raises(grpc.RpcError) as error:
            driver.run(bad)
        assert field in str(error.value).lower()


def test_each_container_has_a_session_keyring_of_its_own(driver: Driver) -> None:
    pod = driver.run("keys")
    command = ("sh", "-c", "cat /proc/keys >/new && mv /new /keys; exec sleep 1000")
    for name in ("one", "other"):
        container = driver.launch(pod, driver.config(name, command))
        keys = partial(driver.output, container, "sh", "-c", "cat /keys || true")
        wait_until("its keys are written down", keys)
        # The keyrings of others of the same user are listed as well, so it is the name that counts.
        assert container in keys()
        assert container in driver.output(container, "cat", "/proc/keys")
