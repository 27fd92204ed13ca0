"""The description for Pants is whole: no Pants is needed to see that."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from triptych_dev.node.places import COMMANDS
from triptych_dev.node.shell import CHECKOUT_ROOT
from triptych_dev.packaging.pex import PROGRAMS
from triptych_dev.pants.commands import CONSTRAINTS, PROOF

SKIPPED = {".dev", ".venv", ".git", "dist", "build", "__pycache__", ".hypothesis"}
PANTS = tomllib.loads((CHECKOUT_ROOT / "pants.toml").read_text())
REQUIREMENTS = CHECKOUT_ROOT / "3rdparty/python/requirements.txt"
LOCK = CHECKOUT_ROOT / PANTS["python"]["resolves"]["python-default"]
DEFAULTS = {
    "python_sources": ["*.py", "*.pyi", "!test_*.py", "!*_test.py", "!tests.py", "!conftest.py"],
    "python_tests": ["test_*.py", "*_test.py", "tests.py"],
    "python_test_utils": ["conftest.py", "test_*.pyi", "*_test.pyi", "tests.pyi"],
}
"""What Pants takes when a target names no sources."""


@dataclass
class Build:
    """One BUILD file, evaluated with stand-ins for what Pants knows."""

    folder: Path
    targets: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        text = (self.folder / "BUILD").read_text()
        kinds = {*re.findall(r"^(\w+)\(", text, re.MULTILINE), *DEFAULTS, "pex_binary"}
        names: dict[str, Any] = {kind: self._target(kind) for kind in kinds}
        names["__defaults__"] = lambda _: None
        exec(compile(text, str(self.folder / "BUILD"), "exec"), names)

    def _target(self, kind: str) -> Any:
        return lambda **arguments: self.targets.append((kind, arguments))

    def files(self, *kinds: str) -> set[Path]:
        """What the targets of these kinds hold."""
        found: set[Path] = set()
        for kind, arguments in self.targets:
            if kind in kinds:
                found |= self._matched(arguments.get("sources", DEFAULTS.get(kind, [])))
        return found

    def _matched(self, patterns: list[str]) -> set[Path]:
        found: set[Path] = set()
        for pattern in patterns:
            if not pattern.startswith("!"):
                found |= set(self.folder.glob(pattern))
        for pattern in patterns:
            if pattern.startswith("!"):
                found -= set(self.folder.glob(pattern[1:]))
        return found


def _walk(folder: Path = CHECKOUT_ROOT) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            if path.name not in SKIPPED and not path.name.startswith("."):
                yield from _walk(path)
        else:
            yield path


@pytest.fixture(scope="module")
def files() -> list[Path]:
    return list(_walk())


@pytest.fixture(scope="module")
def builds(files: list[Path]) -> list[Build]:
    return [Build(path.parent) for path in files if path.name == "BUILD"]


def test_every_python_file_is_of_one_target(files: list[Path], builds: list[Build]) -> None:
    owned: dict[Path, list[Path]] = {}
    for build in builds:
        for path in build.files("python_sources", "python_tests", "python_test_utils"):
            owned.setdefault(path, []).append(build.folder)
    sources = [path for path in files if path.suffix in (".py", ".pyi")]
    assert len(sources) > 400
    missing = [str(path.relative_to(CHECKOUT_ROOT)) for path in sources if path not in owned]
    assert missing == [], "name them in a BUILD file"
    assert {path: folders for path, folders in owned.items() if len(folders) > 1} == {}


def test_tests_are_run_as_tests(builds: list[Build], files: list[Path]) -> None:
    tested = set().union(*(build.files("python_tests") for build in builds))
    assert {path for path in files if re.fullmatch(r"test_\w+\.py", path.name)} <= tested


def test_every_daemon_is_an_executable_file(builds: list[Build]) -> None:
    made = {
        arguments["output_path"]: arguments["entry_point"]
        for build in builds
        for kind, arguments in build.targets
        if kind == "pex_binary"
    }
    assert made == {
        "triptych.pex": "triptych_cli.__main__:main",
        "triptych-image.pex": "triptych_image.__main__:main",
        "triptych-runtime.pex": "triptych_runtime.__main__:main",
        "triptych-streaming.pex": "triptych_streaming.__main__:main",
    }


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_know_their_version_without_metadata(program: str) -> None:
    """A PEX of Pants holds the sources alone."""
    module = COMMANDS[program]
    code = (
        "import importlib.metadata as metadata, sys\n"
        "metadata.version = metadata.distribution = None\n"
        f"from {module} import main\n"
        "sys.argv = ['program', '--version']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{program} {importlib.metadata.version(PROGRAMS[program])}\n", done.stderr


def test_every_source_root_is_named_and_there() -> None:
    roots = PANTS["source"]["root_patterns"]
    found = {f"/{path.relative_to(CHECKOUT_ROOT)}" for pattern in roots for path in _matching(pattern)}
    for distribution in CHECKOUT_ROOT.glob("*/*/pyproject.toml"):
        for folder in ("src", "tests"):
            path = distribution.parent / folder
            if any(path.rglob("*.py")):
                assert f"/{path.relative_to(CHECKOUT_ROOT)}" in found
    assert [pattern for pattern in roots if not _matching(pattern)] == []


def _matching(pattern: str) -> list[Path]:
    return list(CHECKOUT_ROOT.glob(pattern[1:])) if pattern != "/" else [CHECKOUT_ROOT]


def test_what_is_proven_is_what_a_change_needs() -> None:
    assert [goal for goal, _ in PROOF] == ["list", "lint", "check", "test", "package"]


def _lines(path: Path) -> set[str]:
    return {line for line in path.read_text().splitlines() if line and not line.startswith("#")}


DISTRIBUTIONS = sorted(CHECKOUT_ROOT.glob("*/*/pyproject.toml"))


@pytest.mark.parametrize("file", DISTRIBUTIONS, ids=lambda path: path.parent.name)
def test_a_distribution_wants_what_it_imports_and_nothing_else(file: Path) -> None:
    project = tomllib.loads(file.read_text())["project"]
    names = _distribution_names()
    imported = {_distribution(module, names) for module in _imports(file.parent / "src")}
    assert {_name(line) for line in project.get("dependencies", [])} == imported - {project["name"]}


def _distribution_names() -> dict[str, str]:
    """Modules whose distribution has another name: ours, and those that Pants is told of."""
    (_, others), *_ = Build(REQUIREMENTS.parent).targets
    ours = {
        module.name: tomllib.loads(file.read_text())["project"]["name"]
        for file in DISTRIBUTIONS
        for module in (file.parent / "src").iterdir()
    }
    return ours | {module: name for name, modules in others["module_mapping"].items() for module in modules}


def _distribution(module: str, names: dict[str, str]) -> str:
    parts = module.split(".")
    prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((names[prefix] for prefix in prefixes if prefix in names), parts[0])


def _imports(folder: Path) -> set[str]:
    """Modules that are not of the standard library, wherever in the code they are imported."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                # A name of a namespace package is a module: `from opentelemetry import metrics`.
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {module for module in found if module.partition(".")[0] not in sys.stdlib_module_names}


def test_requirements_name_what_the_distributions_want() -> None:
    """Names alone: the versions are those of uv.lock."""
    named = {_name(line) for line in _lines(REQUIREMENTS)}
    wanted = {
        _name(line)
        for path in DISTRIBUTIONS
        for line in tomllib.loads(path.read_text())["project"].get("dependencies", [])
    }
    assert {name for name in wanted if not name.startswith("triptych")} - named == set()


def _name(requirement: str) -> str:
    return re.split(r"[<>=!~;\[ ]", requirement)[0].lower().replace("_", "-")


def test_versions_are_those_of_uv() -> None:
    packages = tomllib.loads((CHECKOUT_ROOT / "uv.lock").read_text())["package"]
    locked = {(package["name"], package.get("version")) for package in packages}
    constrained = {tuple(line.partition(";")[0].strip().split("==")) for line in _lines(CONSTRAINTS)}
    assert constrained - locked == set(), "run ./dev pants lock"
    text = "\n".join(line for line in LOCK.read_text().splitlines() if not line.startswith("//"))
    used = {
        (entry["project_name"], entry["version"])
        for resolve in json.loads(text)["locked_resolves"]
        for entry in resolve["locked_requirements"]
    }
    assert len(used) > 30
    assert used - locked == set(), "run ./dev pants lock"
