from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime.v1 import api_pb2
from triptych_errors import FailedPrecondition, InvalidArgument, NotFound
from triptych_runtime.spec import cdi, cdi_edits

YAML = """\
cdiVersion: "0.5.0"
kind: vendor.com/gpu
containerEdits:
  env: ["COMMON=1"]
devices:
  - name: gpu0
    containerEdits:
      env: ["GPU=0"]
      deviceNodes:
        - path: /dev/gpu0
          hostPath: /dev/null
          permissions: rw
  - name: "1"
    containerEdits:
      env: ["GPU=1"]
"""


def spec(kind: str = "vendor.com/gpu", **devices: dict[str, Any]) -> dict[str, Any]:
    listed = [{"name": name, "containerEdits": edits} for name, edits in devices.items()]
    return {"cdiVersion": "0.6.0", "kind": kind, "devices": listed}


def write(directory: Path, name: str, document: dict[str, Any]) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(json.dumps(document))


def env_of(registry: cdi.Registry, *names: str) -> list[str]:
    return [entry for edit in registry.edits(names) for entry in edit.env or ()]


def test_yaml_and_common_edits_once(tmp_path: Path) -> None:
    (tmp_path / "gpu.yaml").write_text(YAML)
    (tmp_path / "notes.txt").write_text("not read")
    registry = cdi.Registry.load([tmp_path, tmp_path / "none"])
    assert env_of(registry, "vendor.com/gpu=gpu0") == ["COMMON=1", "GPU=0"]
    assert env_of(registry, "vendor.com/gpu=gpu0", "vendor.com/gpu=1") == ["COMMON=1", "GPU=0", "GPU=1"]


def test_a_later_directory_wins(tmp_path: Path) -> None:
    write(tmp_path / "etc", "a.json", spec(one={"env": ["A=etc"]}, two={"env": ["B=etc"]}))
    write(tmp_path / "run", "b.json", spec(one={"env": ["A=run"]}))
    registry = cdi.Registry.load([tmp_path / "etc", tmp_path / "run"])
    assert env_of(registry, "vendor.com/gpu=one", "vendor.com/gpu=two") == ["A=run", "B=etc"]


def test_conflicts_count_for_nobody(tmp_path: Path) -> None:
    write(tmp_path / "etc", "a.json", spec(one={"env": ["A=1"]}))
    write(tmp_path / "etc", "b.json", spec(one={"env": ["A=2"]}, two={"env": ["B=2"]}))
    registry = cdi.Registry.load([tmp_path / "etc"])
    assert env_of(registry, "vendor.com/gpu=two") == ["B=2"]
    with pytest.raises(NotFound, match=r"both .*a\.json and .*b\.json define it"):
        env_of(registry, "vendor.com/gpu=one")
    write(tmp_path / "run", "c.json", spec(one={"env": ["A=3"]}))
    settled = cdi.Registry.load([tmp_path / "etc", tmp_path / "run"])
    assert env_of(settled, "vendor.com/gpu=one") == ["A=3"]


def test_unresolved_devices_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "vendor.com-gpu.json").write_text("{")
    registry = cdi.Registry.load([tmp_path])
    with pytest.raises(NotFound) as caught:
        env_of(registry, "vendor.com/gpu=one", "vendor.com/nic=two")
    message = str(caught.value)
    assert "vendor.com/gpu=one (" in message
    assert "not a CDI spec" in message
    assert message.endswith("vendor.com/nic=two")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cdiVersion": "new"}, "cdiVersion 'new'"),
        ({"kind": "gpu"}, "kind 'gpu'"),
        ({"devices": []}, "no devices"),
        ({"devices": [{"name": "-x"}]}, "device name '-x'"),
        ({"devices": [{"name": "x"}, {"name": "x"}]}, "defined twice"),
        ({"devices": 3}, "not a CDI spec"),
        ({"containerEdits": {"env": ["NOPE"]}}, "env 'NOPE'"),
        ({"containerEdits": {"env": ["=x"]}}, "env '=x'"),
        ({"containerEdits": {"deviceNodes": [{"path": "x"}]}}, "device node 'x'"),
        ({"containerEdits": {"deviceNodes": [{"path": "/x", "type": "q"}]}}, "type 'q'"),
        ({"containerEdits": {"deviceNodes": [{"path": "/x", "permissions": "x"}]}}, "permissions"),
        ({"containerEdits": {"hooks": [{"hookName": "later", "path": "/x"}]}}, "hook 'later'"),
        ({"containerEdits": {"mounts": [{"hostPath": "/x", "containerPath": "y"}]}}, "mount '/x'"),
    ],
)
def test_bad_specs(change: dict[str, Any], message: str) -> None:
    document = {**spec(one={}), **change}
    with pytest.raises(InvalidArgument, match=message):
        cdi.parse(json.dumps(document).encode(), ".json")


def test_bad_yaml() -> None:
    with pytest.raises(InvalidArgument, match="not YAML"):
        cdi.parse(b"a: [", ".yaml")
    with pytest.raises(InvalidArgument, match="not YAML"):
        cdi.parse(b"!!python/object/apply:os.system [id]", ".yaml")


@given(st.binary(max_size=200), st.sampled_from([".json", ".yaml"]))
def test_any_bytes_are_a_spec_or_refused(content: bytes, suffix: str) -> None:
    with pytest.raises(InvalidArgument):
        cdi.parse(content, suffix)


@pytest.mark.parametrize("name", ["vendor.com/gpu=0", "v/c=a:b.c_d-1", "vendor.com/net-1=all"])
def test_names(name: str) -> None:
    cdi.check_name(name)


@pytest.mark.parametrize(
    "name", ["", "gpu0", "vendor.com/gpu", "vendor.com/gpu=", "a/b/c=d", "1v/c=d", "v/c=d "]
)
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidArgument, match="is not vendor/class=device"):
        cdi.check_name(name)


def test_requested_devices() -> None:
    config = api_pb2.ContainerConfig(
        CDI_devices=[api_pb2.CDIDevice(name="v/c=1"), api_pb2.CDIDevice(name="v/c=1")],
        annotations={"cdi.k8s.io/plugin": "v/c=2, v/c=1", "other": "v/c=3"},
    )
    assert cdi.requested(config) == ["v/c=1", "v/c=2"]
    config.annotations["cdi.k8s.io/bad"] = "x"
    with pytest.raises(InvalidArgument, match="'x'"):
        cdi.requested(config)


def document() -> dict[str, Any]:
    return {
        "process": {"env": ["PATH=/bin"], "user": {"uid": 5, "gid": 6, "additionalGids": [6]}},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": []},
            {"destination": "/a/b", "type": "bind", "source": "/x", "options": ["rbind"]},
        ],
        "linux": {"resources": {"devices": [{"allow": False, "access": "rwm"}]}},
    }


def apply(**edits: Any) -> dict[str, Any]:
    made = document()
    parsed = cdi.parse(json.dumps(spec(one=edits)).encode(), ".json")
    cdi_edits.apply(made, [parsed.devices[0].container_edits])
    return made


def test_device_nodes_are_completed_from_the_host() -> None:
    made = apply(deviceNodes=[{"path": "/dev/mine", "hostPath": "/dev/null", "permissions": "r", "uid": 9}])
    node = made["linux"]["devices"][0]
    assert {k: node[k] for k in ("path", "type", "major", "minor", "uid", "gid")} == {
        "path": "/dev/mine",
        "type": "c",
        "major": 1,
        "minor": 3,
        "uid": 9,
        "gid": 6,
    }
    assert made["linux"]["resources"]["devices"][-1] == {
        "allow": True,
        "type": "c",
        "major": 1,
        "minor": 3,
        "access": "r",
    }


def test_device_nodes_that_tell_all() -> None:
    made = apply(deviceNodes=[{"path": "/dev/x", "type": "b", "major": 8, "minor": 1, "fileMode": 384}])
    node = made["linux"]["devices"][0]
    assert (node["type"], node["major"], node["minor"], node["fileMode"]) == ("b", 8, 1, 0o600)
    assert made["linux"]["resources"]["devices"][-1]["access"] == "rwm"


def test_bad_device_nodes() -> None:
    with pytest.raises(NotFound, match="/dev/no-such is no device"):
        apply(deviceNodes=[{"path": "/dev/no-such"}])
    with pytest.raises(FailedPrecondition, match="of type c, not b"):
        apply(deviceNodes=[{"path": "/dev/null", "type": "b"}])


def test_other_edits() -> None:
    made = apply(
        env=["PATH=/new", "X=1"],
        mounts=[
            {"hostPath": "/lib", "containerPath": "/lib", "options": ["ro", "nosuid"]},
            {"hostPath": "tmpfs", "containerPath": "/a/b", "type": "tmpfs", "options": ["size=1m"]},
        ],
        hooks=[{"hookName": "createContainer", "path": "/hook", "args": ["hook"], "timeout": 3}],
        intelRdt={"closID": "gold", "enableCMT": True},
        additionalGids=[0, 6, 7],
        netDevices=[{"hostInterfaceName": "eth5", "name": "net0"}],
    )
    assert made["process"]["env"] == ["PATH=/new", "X=1"]
    assert [m["destination"] for m in made["mounts"]] == ["/proc", "/lib", "/a/b"]
    assert made["mounts"][1] == {
        "destination": "/lib",
        "type": "bind",
        "source": "/lib",
        "options": ["rbind", "ro", "nosuid"],
    }
    assert made["mounts"][2]["type"] == "tmpfs"
    assert made["hooks"] == {"createContainer": [{"path": "/hook", "args": ["hook"], "timeout": 3}]}
    assert made["linux"]["intelRdt"] == {"closID": "gold", "enableCMT": True}
    assert made["process"]["user"]["additionalGids"] == [6, 7]
    assert made["linux"]["netDevices"] == {"eth5": {"name": "net0"}}
