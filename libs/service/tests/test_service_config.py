from __future__ import annotations

import enum
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from triptych_service.config import load, plain
from triptych_service.errors import ConfigError
from triptych_service.reference import describe_type, effective, help_text, reference_page
from triptych_service.reload import Outcome, changes, merge, report
from triptych_service.settings import (
    HIDDEN,
    LogLevel,
    Reload,
    ServiceSettings,
    Table,
    TelemetrySettings,
    keys,
    setting,
)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Limits(Table):
    layers: Annotated[int, msgspec.Meta(ge=1, le=64)] = setting(3, "Layers at once.", reload=Reload.LIVE)
    seconds: float = setting(1.5, "How long.")


class Handler(Table):
    path: str = setting("", "Binary.")


class Settings(ServiceSettings):
    root: str = setting("/var", "Where `things` are.")
    colour: Colour = setting(Colour.RED, "Which | colour.", reload=Reload.LIVE)
    names: tuple[str, ...] = setting((), "Names.")
    limits: Limits = setting(Limits(), "Limits.")
    handlers: dict[str, Handler] = setting({}, "Runtime handlers by name.")


def write(tmp_path: Path, text: str, **drop_ins: str) -> Path:
    path = tmp_path / "image.toml"
    path.write_text(text)
    for name, content in drop_ins.items():
        (tmp_path / "image.toml.d").mkdir(exist_ok=True)
        (tmp_path / "image.toml.d" / f"{name}.toml").write_text(content)
    return path


def problems(tmp_path: Path, text: str, **drop_ins: str) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load(Settings, write(tmp_path, text, **drop_ins), must_exist=True)
    return [problem.replace(str(tmp_path), "DIR") for problem in raised.value.problems]


def test_defaults_without_a_file(tmp_path: Path) -> None:
    loaded = load(Settings, tmp_path / "image.toml", must_exist=False)
    assert loaded.settings == Settings()
    assert loaded.settings.log.level is LogLevel.INFO
    assert loaded.files == ()


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"image\.toml: cannot be read: No such file"):
        load(Settings, tmp_path / "image.toml", must_exist=True)


def test_drop_ins_win_in_the_order_of_names_and_tables_merge(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        'root = "/a"\nnames = ["x"]\n[limits]\nlayers = 5\nseconds = 2\n[handlers.crun]\npath = "/crun"',
        b='root = "/c"\n[limits]\nlayers = 7\n[handlers.runc]\npath = "/r"',
        a='root = "/b"\nnames = ["y", "z"]',
    )
    loaded = load(Settings, path, must_exist=True)
    assert loaded.settings.root == "/c"
    assert loaded.settings.names == ("y", "z")
    assert loaded.settings.limits == Limits(layers=7, seconds=2)
    assert loaded.settings.handlers == {"crun": Handler(path="/crun"), "runc": Handler(path="/r")}
    assert [file.name for file in loaded.files] == ["image.toml", "a.toml", "b.toml"]
    assert loaded.origins["root"].name == "b.toml"
    assert loaded.origins["limits.seconds"].name == "image.toml"


def test_a_named_table_leaves_those_of_the_default(tmp_path: Path) -> None:
    class Node(ServiceSettings):
        handlers: dict[str, Handler] = setting({"crun": Handler(), "runc": Handler()}, "By name.")

    more = write(tmp_path, '[handlers.youki]\n[handlers.runc]\npath = "/opt/runc"', more="[handlers.krun]")
    handlers = load(Node, more, must_exist=True).settings.handlers
    assert {name: handler.path for name, handler in handlers.items()} == {
        "crun": "",
        "runc": "/opt/runc",
        "youki": "",
        "krun": "",
    }
    assert list(handlers)[:2] == ["crun", "runc"]
    assert list(load(Node, tmp_path / "none.toml", must_exist=False).settings.handlers) == ["crun", "runc"]


def test_every_mistake_of_every_file_is_told_at_once(tmp_path: Path) -> None:
    found = problems(
        tmp_path,
        'rooot = "/a"\ncolour = "green"\n[limits]\nlayers = 65\n[handlers.crun]\npth = ""\n[log]\nlevel = 3',
        a="limits = 3\ngrace_seconds = -1.5",
    )
    assert found == [
        "DIR/image.toml: unknown key `rooot`, did you mean `root`?",
        'DIR/image.toml: `colour`: expected one of "red", "blue", got string \'green\'',
        "DIR/image.toml: `limits.layers`: expected an integer from 1 to 64, got integer 65",
        "DIR/image.toml: unknown key `handlers.crun.pth`, did you mean `handlers.crun.path`?",
        'DIR/image.toml: `log.level`: expected one of "debug", "info", "warning", "error", got integer 3',
        "DIR/image.toml.d/a.toml: `limits`: expected a table, got integer 3",
        "DIR/image.toml.d/a.toml: `grace_seconds`: expected a number from 0 to 3600, got float -1.5",
    ]


def test_an_unknown_key_without_a_likeness_lists_the_known_ones(tmp_path: Path) -> None:
    assert problems(tmp_path, "[limits]\nzzz = 1") == [
        "DIR/image.toml: unknown key `limits.zzz`; `[limits]` has `layers`, `seconds`"
    ]


def test_a_file_that_is_not_toml_names_the_place(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, "root = \n")
    assert problem.startswith("DIR/image.toml: not TOML: ")
    assert "line 1" in problem


def test_a_boolean_is_no_integer_and_a_long_value_is_cut(tmp_path: Path) -> None:
    found = problems(tmp_path, f'root = true\nnames = "{"n" * 200}"')
    assert found[0] == "DIR/image.toml: `root`: expected a string, got boolean true"
    assert found[1].startswith("DIR/image.toml: `names`: expected an array, each a string, got string 'nnn")
    assert len(found[1]) < 200


def test_types_in_words() -> None:
    assert describe_type(str | None) == "a string"
    assert describe_type(Annotated[float, msgspec.Meta(gt=0)]) == "a number above 0"
    assert describe_type(list[Colour]) == 'an array, each one of "red", "blue"'


def test_every_setting_is_in_help_and_reference() -> None:
    page, text = reference_page(Settings, "triptych-image", "/etc/triptych/image.toml"), help_text(Settings)

    def leaves(table: type[Table], prefix: str) -> list[tuple[str, str]]:
        found = []
        for key in keys(table):
            inner = key.table or key.table_map
            name = prefix + key.name + (".NAME" if key.table_map else "")
            found += leaves(inner, name + ".") if inner else [(name, key.name)]
        return found

    for dotted, name in leaves(Settings, ""):
        assert f"| `{name}` |" in page
        assert f"  {dotted}" in text
    assert "### `[handlers.NAME]`" in page
    assert "Which \\| colour." in page
    assert "| `layers` | an integer from 1 to 64 | `3` | on SIGHUP | Layers at once. |" in page


def test_a_field_without_setting_is_a_mistake_of_the_programmer() -> None:
    class Wrong(Table):
        x: int = 3

    with pytest.raises(TypeError, match=r"Wrong\.x is not declared"):
        list(keys(Wrong))


def test_reload_takes_live_keys_only() -> None:
    old = Settings()
    new = Settings(root="/new", colour=Colour.BLUE, limits=Limits(layers=9, seconds=9))
    assert {(c.key, c.outcome) for c in changes(old, new)} == {
        ("root", Outcome.NEEDS_RESTART),
        ("colour", Outcome.APPLIED),
        ("limits.layers", Outcome.APPLIED),
        ("limits.seconds", Outcome.NEEDS_RESTART),
    }
    assert merge(old, new) == Settings(colour=Colour.BLUE, limits=Limits(layers=9))


def test_secrets_are_neither_logged_nor_printed(caplog: pytest.LogCaptureFixture) -> None:
    secret = Settings(telemetry=TelemetrySettings(headers={"authorization": "hush"}))
    with caplog.at_level("INFO"):
        report(list(changes(Settings(), secret)))
    (record,) = (vars(record) for record in caplog.records)
    assert (record["key"], record["old"], record["new"]) == ("telemetry.headers", HIDDEN, HIDDEN)
    printed = effective(secret, {})
    assert "hush" not in printed
    assert f'headers = "{HIDDEN}"' in printed


def test_plain_values() -> None:
    assert plain(Settings().limits) == {"layers": 3, "seconds": 1.5}
    assert plain((Colour.RED, {"a": Handler(path="p")})) == ["red", {"a": {"path": "p"}}]


@pytest.mark.parametrize("text", ["a\nb", 'q"x\\y', "é", "\x01\t", "  # x"])
def test_what_is_printed_is_toml(text: str) -> None:
    printed = effective(Settings(root=text, names=(text,)), {})
    read = tomllib.loads(printed)
    assert (read["root"], read["names"]) == (text, [text])
