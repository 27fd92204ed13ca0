"""Installing into a directory that becomes a node's root, and taking everything out again."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from triptych_dev.node import CHECKOUT, InstallOptions, UninstallOptions, install, uninstall
from triptych_dev.node.errors import NotPossible
from triptych_dev.node.python_tree import find_interpreter

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="needs Debian's package python3"),
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    binaries = tmp_path / "usr/bin"
    binaries.mkdir(parents=True)
    name = Path("/usr/bin/python3").resolve().name
    (binaries / name).symlink_to(f"/usr/bin/{name}")
    return tmp_path


def _files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_install_upgrade_uninstall(root: Path) -> None:
    before = _files(root)
    steps: list[str] = []
    done = install(InstallOptions(root=root, kubelet=True), steps.append)
    assert steps and not done.started
    assert {"conmon", "containernetworking-plugins"} <= set(done.missing)

    prefix = root / "opt/triptych"
    interpreter = find_interpreter(root)
    site = prefix / "lib" / interpreter.name / "site-packages"
    assert list(site.glob("triptych_service/__pycache__/*.pyc")), "bytecode is compiled ahead"
    assert not (site / "triptych_dev").exists(), "a node has no developer tools"
    assert (prefix / "bin/triptych").read_text().startswith("#!/opt/triptych/bin/python3 -I\n")
    for name in ("image", "runtime", "streaming"):
        launcher = (prefix / f"bin/triptych-{name}").read_text()
        assert launcher.startswith("#!/opt/triptych/bin/python3 -IOOXno_debug_ranges\n")
        assert list(site.glob(f"triptych_{name}/__pycache__/*.opt-2.pyc")), "as the launcher runs it"
        unit = root / f"etc/systemd/system/triptych-{name}.service"
        assert f"ExecStart=/opt/triptych/bin/triptych-{name}\n" in unit.read_text()
        wanted = root / f"etc/systemd/system/multi-user.target.wants/triptych-{name}.service"
        assert wanted.is_symlink()
        imported = f"import grpc, triptych_{name}"
        subprocess.run(
            [
                f"/usr/bin/{interpreter.name}",
                "-I",
                "-c",
                f"import sys; sys.path.insert(0, {str(site)!r}); {imported}",
            ],
            check=True,
        )
    listed = {entry["path"] for entry in json.loads((prefix / "install.json").read_bytes())["entries"]}
    assert {"/etc/triptych/image.toml", "/usr/local/bin/triptych", "/etc/crictl.yaml"} <= listed

    nftables = root / "etc/systemd/system/nftables.service.d"
    assert (nftables / "triptych.conf").is_file()

    config = root / "etc/triptych/image.toml"
    config.write_text("# mine\n")
    again = install(InstallOptions(root=root), steps.append)
    assert again.kept == (Path("/etc/triptych/image.toml"),)
    assert config.read_text() == "# mine\n"

    uninstall(UninstallOptions(root=root), steps.append)
    assert _files(root) == before
    assert not nftables.exists()
    with pytest.raises(NotPossible, match="nothing is installed"):
        uninstall(UninstallOptions(root=root), steps.append)


def test_a_root_without_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    for program in ("conmon", "runc"):
        (tmp_path / "usr/bin" / program).touch()
    steps: list[str] = []
    with pytest.raises(NotPossible, match="no Python"):
        install(InstallOptions(root=tmp_path), steps.append)
    needed = "iptables nftables mount containernetworking-plugins"
    assert steps == [f"needed beside this: apt-get install {needed}"], "told before anything can fail"
    (tmp_path / "usr/bin/python3.9").touch()
    with pytest.raises(NotPossible, match=r"3\.9 is too old"):
        install(InstallOptions(root=tmp_path), lambda step: None)
    assert not (tmp_path / "opt").exists()


def test_the_package_is_not_mixed_with_a_checkout(root: Path) -> None:
    (root / "usr/lib/triptych").mkdir(parents=True)
    with pytest.raises(NotPossible, match="Debian package"):
        install(InstallOptions(root=root, places=CHECKOUT), lambda step: None)
