"""docs/cri.md against the proto: every RPC and every field has a row, and says something it can mean."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor
from runtime.v1 import api_pb2

PAGE = Path(__file__).parents[3] / "docs" / "cri.md"
PROTO = api_pb2.DESCRIPTOR
HONOURED, REPORTED, REFUSED, NOT_ON_LINUX = "honoured", "reported", "refused", "not on Linux"
BOTH = "honoured, reported"


@dataclass(frozen=True)
class Row:
    """A row of one of the tables."""

    section: str
    name: str
    state: str
    notes: str


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    found: list[Row] = []
    section = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        match = re.fullmatch(r"\| (\S+) \| ([^|]+) \|(.*)\|", line)
        if match and match[1] not in ("RPC", "field"):
            found.append(Row(section, match[1], match[2].strip(), match[3].strip()))
    return found


def _reachable(message: Descriptor, into: set[str]) -> None:
    if message.full_name not in into:
        into.add(message.full_name)
        for field in message.fields:
            if field.message_type is not None:
                _reachable(field.message_type, into)


def _directions() -> tuple[set[str], set[str]]:
    """Names of the messages that requests and answers are made of."""
    asked: set[str] = set()
    answered: set[str] = set()
    for service in PROTO.services_by_name.values():
        for method in service.methods:
            _reachable(method.input_type, asked)
            _reachable(method.output_type, answered)
    return asked, answered


def test_every_rpc_has_one_row(rows: list[Row]) -> None:
    expected = [(name, m.name) for name, s in PROTO.services_by_name.items() for m in s.methods]
    sections = PROTO.services_by_name.keys()
    assert sorted((r.section, r.name) for r in rows if r.section in sections) == sorted(expected)
    assert len(expected) == 43


def test_every_field_has_one_row(rows: list[Row]) -> None:
    messages = PROTO.message_types_by_name
    expected = [(name, f.name) for name, message in messages.items() for f in message.fields]
    services = PROTO.services_by_name.keys()
    assert sorted((r.section, r.name) for r in rows if r.section not in services) == sorted(expected)


def test_messages_nest_only_maps() -> None:
    for message in PROTO.message_types_by_name.values():
        assert all(nested.GetOptions().map_entry for nested in message.nested_types)


def test_states_fit_the_direction(rows: list[Row]) -> None:
    asked, answered = _directions()
    for row in rows:
        if row.section in PROTO.services_by_name:
            assert row.state in (HONOURED, REFUSED), row
            continue
        name = PROTO.message_types_by_name[row.section].full_name
        allowed = {NOT_ON_LINUX}
        if name in asked and name in answered:
            allowed |= {BOTH, REFUSED}
        elif name in asked:
            allowed |= {HONOURED, REFUSED}
        else:
            allowed |= {REPORTED}
        assert row.state in allowed, row


def test_windows_is_not_on_linux(rows: list[Row]) -> None:
    for row in rows:
        windows = row.section.startswith("Windows") or row.name == "windows"
        assert (row.state == NOT_ON_LINUX) is windows, row


def test_what_is_refused_says_how(rows: list[Row]) -> None:
    for row in rows:
        if row.state == REFUSED:
            assert re.search(r"[A-Z]+(_[A-Z]+)+|UNIMPLEMENTED", row.notes), row
