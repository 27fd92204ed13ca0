"""Names of cgroups for both drivers."""

from __future__ import annotations

import pytest
from triptych_runtime.cgroups import BadParent, Driver, paths

ID = "ab" * 32


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        ("/kubepods/burstable/pod1", "/kubepods/burstable/pod1"),
        ("kubepods/pod1/", "/kubepods/pod1"),
        ("/", "/"),
    ],
)
def test_cgroupfs_parents(parent: str, expected: str) -> None:
    assert paths.check_parent(Driver.CGROUPFS, parent) == expected


@pytest.mark.parametrize("parent", ["/kubepods.slice", "a.slice", "/a/../b", "/a\nb", "/a\0b"])
def test_cgroupfs_refuses(parent: str) -> None:
    with pytest.raises(BadParent, match="cgroup_parent"):
        paths.check_parent(Driver.CGROUPFS, parent)


@pytest.mark.parametrize(
    ("parent", "expected"),
    [
        ("kubepods.slice", "kubepods.slice"),
        ("/kubepods.slice/kubepods-pod1.slice", "kubepods-pod1.slice"),
        ("/kubepods.slice/kubepods-pod1.slice/", "kubepods-pod1.slice"),
    ],
)
def test_systemd_parents(parent: str, expected: str) -> None:
    assert paths.check_parent(Driver.SYSTEMD, parent) == expected


@pytest.mark.parametrize("parent", ["/kubepods/pod1", "", "a--b.slice", "-a.slice", ".slice"])
def test_systemd_refuses(parent: str) -> None:
    with pytest.raises(BadParent):
        paths.check_parent(Driver.SYSTEMD, parent)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("-.slice", "/"),
        ("a.slice", "/a.slice"),
        ("a-b-c.slice", "/a.slice/a-b.slice/a-b-c.slice"),
    ],
)
def test_expand_slice(name: str, expected: str) -> None:
    assert paths.expand_slice(name) == expected


def test_oci_path_and_its_directory() -> None:
    path = paths.oci_path(Driver.CGROUPFS, "/kubepods/pod1", ID)
    assert path == f"/kubepods/pod1/{ID}"
    assert paths.filesystem_path(path) == path
    unit = paths.oci_path(Driver.SYSTEMD, "kubepods-pod1.slice", ID)
    assert unit == f"kubepods-pod1.slice:triptych:{ID}"
    assert paths.filesystem_path(unit) == f"/kubepods.slice/kubepods-pod1.slice/triptych-{ID}.scope"


def test_default_parent_has_the_form_of_its_driver() -> None:
    for driver in Driver:
        parent = paths.default_parent(driver, ID)
        assert paths.check_parent(driver, parent) == parent
    slice_path = paths.parent_filesystem_path(Driver.SYSTEMD, f"triptych-{ID}.slice")
    assert slice_path == f"/triptych.slice/triptych-{ID}.slice"


def test_filesystem_path_refuses_what_no_driver_makes() -> None:
    with pytest.raises(BadParent):
        paths.filesystem_path("relative/path")


@pytest.mark.parametrize(
    ("driver", "path"),
    [
        (Driver.CGROUPFS, "a.slice:triptych:c"),
        (Driver.SYSTEMD, "/a/c"),
        (Driver.CGROUPFS, "a/c"),
        (Driver.CGROUPFS, "/a/../c"),
        (Driver.SYSTEMD, "a:b"),
        (Driver.SYSTEMD, "a.slice:x:c/below"),
        (Driver.SYSTEMD, "a.slice:x:c.slice"),
        (Driver.SYSTEMD, "a.slice::c"),
    ],
)
def test_a_path_of_others_has_the_form_of_the_driver(driver: Driver, path: str) -> None:
    with pytest.raises(BadParent):
        paths.check_path(driver, path)


def test_a_path_of_others_is_normalised() -> None:
    assert paths.check_path(Driver.CGROUPFS, "/a//c/") == "/a/c"
    assert paths.check_path(Driver.SYSTEMD, "a.slice:x:c") == "a.slice:x:c"
