"""Reading CNI configuration: order, bad files, versions, templates."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from triptych_runtime.network import _config, _podcidr, _versions
from triptych_runtime.network.errors import ConfigInvalid, PodCidrInvalid


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def conflist(name: str, **extra: Any) -> dict[str, Any]:
    return {"cniVersion": "1.0.0", "name": name, "plugins": [{"type": "bridge"}], **extra}


def test_files_are_taken_by_name_and_bad_ones_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "00-broken.conflist", "{")
    write(tmp_path / "05-nothing.conflist", {"name": "x", "plugins": []})
    write(tmp_path / "10-single.conf", {"cniVersion": "0.4.0", "name": "one", "type": "ptp"})
    write(tmp_path / "20-second.conflist", conflist("two"))
    write(tmp_path / "readme.txt", "not configuration")
    write(tmp_path / "30.conflist" / "inner", "a directory")
    loaded = _config.load([str(tmp_path / "absent"), str(tmp_path)], 1)
    assert [network.name for network in loaded.networks] == ["one"]
    assert [problem.split(":")[0] for problem in loaded.problems] == [
        str(tmp_path / "00-broken.conflist"),
        str(tmp_path / "05-nothing.conflist"),
    ]
    assert [network.name for network in _config.load([str(tmp_path)], 0).networks] == ["one", "two"]


def test_files_whose_names_are_not_utf8_are_told_with_escapes(tmp_path: Path) -> None:
    for name, document in (
        (b"00-\xff.conflist", "{"),
        (b"10-\xff.conflist", conflist("one")),
        (b"20-\xff.conf", {"name": "one", "type": "ptp"}),
    ):
        write(tmp_path / os.fsdecode(name), document)
    loaded = _config.load([str(tmp_path)], 0)
    assert [network.source for network in loaded.networks] == [f"{tmp_path}/10-\\udcff.conflist"]
    assert [problem.partition(": ")[0] for problem in loaded.problems] == [
        f"{tmp_path}/00-\\udcff.conflist",
        f"{tmp_path}/20-\\udcff.conf",
    ]


def test_earlier_directories_come_first_and_a_name_counts_once(tmp_path: Path) -> None:
    write(tmp_path / "a" / "99.conflist", conflist("mine"))
    write(tmp_path / "b" / "00.conflist", conflist("mine"))
    loaded = _config.load([str(tmp_path / "a"), str(tmp_path / "b")], 0)
    assert [network.source for network in loaded.networks] == [str(tmp_path / "a" / "99.conflist")]
    assert "another file has a network named 'mine'" in loaded.problems[0]


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ("[]", "not a JSON object"),
        ({"plugins": [{"type": "x"}]}, "name: expected"),
        (conflist("n", plugins={}), "plugins: expected a list"),
        (conflist("n", plugins=["x"]), "plugins[0]: expected an object"),
        (conflist("n", plugins=[{"type": "../evil"}]), "plugins[0].type"),
        (conflist("n", plugins=[{"type": "x", "capabilities": ["mac"]}]), "plugins[0].capabilities"),
        (conflist("n", cniVersion="2.0.0"), "2.0.0 is not supported"),
        (conflist("n", cniVersion="one"), "'one' is not a version"),
        (conflist("n", cniVersions="1.0.0"), "cniVersions: expected a list"),
        (conflist("n", disableCheck="maybe"), "disableCheck: expected true or false"),
    ],
)
def test_errors_name_file_and_key(tmp_path: Path, document: Any, complaint: str) -> None:
    path = write(tmp_path / "10.conflist", document)
    with pytest.raises(ConfigInvalid) as caught:
        _config.read(path)
    assert str(path) in str(caught.value)
    assert complaint in str(caught.value)


def test_what_a_list_says(tmp_path: Path) -> None:
    plugins = [{"type": "portmap", "capabilities": {"portMappings": True, "mac": False}, "snat": True}]
    document = conflist(
        "n", plugins=plugins, cniVersions=["1.1.0", "0.4.0", "9.0.0"], disableCheck="true", disableGC=True
    )
    config = _config.read(write(tmp_path / "10.conflist", document))
    assert config.versions == ("0.4.0", "1.0.0", "1.1.0")
    assert (config.disable_check, config.disable_gc) == (True, True)
    assert config.plugins[0].capabilities == ("portMappings",)
    assert config.plugins[0].conf == {"type": "portmap", "snat": True}


def test_plugins_in_files_of_their_own(tmp_path: Path) -> None:
    """Specification 1.1, `loadOnlyInlinedPlugins`."""
    write(tmp_path / "n" / "20.conf", {"type": "tuning"})
    write(tmp_path / "n" / "10.conf", {"type": "portmap"})
    config = _config.read(write(tmp_path / "10.conflist", conflist("n")))
    assert [plugin.type for plugin in config.plugins] == ["bridge", "portmap", "tuning"]
    config = _config.read(write(tmp_path / "10.conflist", conflist("n", loadOnlyInlinedPlugins=True)))
    assert [plugin.type for plugin in config.plugins] == ["bridge"]


def test_a_configuration_without_version_is_an_old_one(tmp_path: Path) -> None:
    config = _config.read(write(tmp_path / "10.conf", {"name": "n", "type": "bridge"}))
    assert config.versions == ("0.1.0",)


def test_the_newest_version_that_all_speak() -> None:
    old, new = {"0.4.0", "1.0.0"}, {"0.4.0", "1.0.0", "1.1.0"}
    assert _versions.best(["1.1.0", "1.0.0"], [old, new]) == "1.0.0"
    assert _versions.best(["1.1.0", "1.0.0"], [new]) == "1.1.0"
    assert _versions.best(["1.1.0"], [old]) is None
    assert _versions.at_least("0.10.0", "0.4.0")


def test_pod_cidr() -> None:
    assert _podcidr.parse(" 10.1.0.0/24, fd00::/64") == ("10.1.0.0/24", "fd00::/64")
    assert _podcidr.parse("") == ()
    for bad in ("10.1.0.1/24", "x", "10.1.0.0/24,10.2.0.0/24"):
        with pytest.raises(PodCidrInvalid):
            _podcidr.parse(bad)


def test_template(tmp_path: Path) -> None:
    document = conflist(
        "n",
        plugins=[
            {
                "type": "bridge",
                "keep": None,
                "mtu": 1400,
                "ipam": {
                    "ranges": "${POD_CIDR_RANGES}",
                    "routes": "${POD_CIDR_ROUTES}",
                    "first": "${POD_CIDR}",
                    "v6": "${POD_CIDR_V6}",
                    "all": ["${POD_CIDR_V4}", "${POD_CIDR_V6}"],
                },
            }
        ],
    )
    path = write(tmp_path / "template", document)
    ipam = _podcidr.render(path, ("10.1.0.0/24", "fd00::/64")).plugins[0].conf["ipam"]
    assert ipam == {
        "ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        "first": "10.1.0.0/24",
        "v6": "fd00::/64",
        "all": ["10.1.0.0/24", "fd00::/64"],
    }
    conf = _podcidr.render(path, ("10.1.0.0/24",)).plugins[0].conf
    assert conf["keep"] is None
    assert "v6" not in conf["ipam"]
    assert conf["ipam"]["all"] == ["10.1.0.0/24"]
    with pytest.raises(ConfigInvalid):
        _podcidr.render(tmp_path / "absent", ("10.1.0.0/24",))


def test_shipped_configuration_is_valid() -> None:
    shipped = Path(__file__).parents[3] / "deploy" / "cni"
    config = _config.read(shipped / "10-triptych.conflist")
    assert [plugin.type for plugin in config.plugins] == ["bridge", "portmap", "bandwidth"]
    assert _config.read(shipped / "examples" / "dual-stack.conflist").name == "triptych"
    rendered = _podcidr.render(shipped / "examples" / "pod-cidr.conflist", ("10.1.0.0/24",))
    assert rendered.plugins[0].conf["ipam"]["ranges"] == [[{"subnet": "10.1.0.0/24"}]]
