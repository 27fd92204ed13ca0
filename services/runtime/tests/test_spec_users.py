from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from runtime.v1 import api_pb2
from triptych_errors import InvalidArgument
from triptych_runtime.spec import ResolvedUser, RootfsView
from triptych_runtime.spec.users import MAX_ID, parse_group, parse_passwd, resolve_user, validate

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
# a comment

broken line
app:x:1000:1001:App:/home/app:/bin/sh
other:x:notanumber:5::/:/bin/sh
big:x:4294967294:1::/:/bin/sh
"""
GROUP = b"""root:x:0:root
app:x:1001:
extra:x:2000:app, root ,other
named:x:2001:1000
more:x:1999:app
broken
"""


@pytest.fixture
def files(tmp_path: Path) -> RootfsView:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_bytes(PASSWD)
    (tmp_path / "etc/group").write_bytes(GROUP)
    return RootfsView([tmp_path])


def context(
    user: int | None = None,
    group: int | None = None,
    name: str = "",
    groups: tuple[int, ...] = (),
    policy: api_pb2.SupplementalGroupsPolicy.ValueType = api_pb2.Merge,
) -> api_pb2.LinuxContainerSecurityContext:
    result = api_pb2.LinuxContainerSecurityContext(
        run_as_username=name, supplemental_groups=groups, supplemental_groups_policy=policy
    )
    if user is not None:
        result.run_as_user.value = user
    if group is not None:
        result.run_as_group.value = group
    return result


@pytest.mark.parametrize(
    ("given_context", "image", "expected"),
    [
        (context(), "", ResolvedUser(0, 0, (0, 2000))),
        (context(), "app", ResolvedUser(1000, 1001, (1001, 1999, 2000))),
        (context(), "1000", ResolvedUser(1000, 1001, (1001, 1999, 2000))),
        (context(), "app:extra", ResolvedUser(1000, 2000, (1999, 2000))),
        (context(), "1000:7", ResolvedUser(1000, 7, (7, 1999, 2000))),
        (context(), "77:extra", ResolvedUser(77, 2000, (2000,))),
        (context(), "77", ResolvedUser(77, 0, (0,))),
        (context(user=1000), "root", ResolvedUser(1000, 1001, (1001, 1999, 2000))),
        (context(user=1000, group=9), "", ResolvedUser(1000, 9, (9, 1999, 2000))),
        (context(user=5, name="app"), "", ResolvedUser(1000, 1001, (1001, 1999, 2000))),
        (context(name="1000"), "", ResolvedUser(1000, 1001, (1001, 1999, 2000))),
        (context(user=1000, groups=(4, 2000)), "", ResolvedUser(1000, 1001, (4, 1001, 1999, 2000))),
        (context(user=1000, groups=(4,), policy=api_pb2.Strict), "", ResolvedUser(1000, 1001, (4, 1001))),
        (context(policy=api_pb2.Strict), "app", ResolvedUser(1000, 1001, (1001,))),
    ],
)
def test_resolves(
    files: RootfsView,
    given_context: api_pb2.LinuxContainerSecurityContext,
    image: str,
    expected: ResolvedUser,
) -> None:
    assert resolve_user(given_context, image, files) == expected


@pytest.mark.parametrize(
    ("given_context", "image", "message"),
    [
        (context(name="nobody"), "", "run_as_username: the image's /etc/passwd has no user 'nobody'"),
        (context(), "ghost", "the image's User: the image's /etc/passwd has no user 'ghost'"),
        (context(), "app:ghosts", "has no group 'ghosts'"),
        (context(), "a:b:c", "'a:b:c' is not user or user:group"),
        (context(), "2147483648", "not between 0 and 2147483647"),
        (context(), "-1", "-1 is not between"),
        (context(), "big", "4294967294 is not between"),
        (context(user=-1), "", "run_as_user: -1"),
        (context(group=5), "app", "run_as_group is set without"),
        (context(groups=(-3,)), "", "supplemental_groups: -3"),
    ],
)
def test_refuses(
    files: RootfsView, given_context: api_pb2.LinuxContainerSecurityContext, image: str, message: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        resolve_user(given_context, image, files)
    assert message in str(caught.value)


def test_an_image_without_user_files(tmp_path: Path) -> None:
    view = RootfsView([tmp_path])
    assert resolve_user(context(user=1000), "", view) == ResolvedUser(1000, 0, (0,))
    with pytest.raises(InvalidArgument, match="no user 'app'"):
        resolve_user(context(), "app", view)


def test_validate_names_the_field() -> None:
    with pytest.raises(InvalidArgument, match="run_as_group is set without"):
        validate(context(group=1))
    with pytest.raises(InvalidArgument, match="run_as_user"):
        validate(context(user=MAX_ID + 1))
    with pytest.raises(InvalidArgument, match="supplemental_groups_policy"):
        validate(api_pb2.LinuxContainerSecurityContext(supplemental_groups_policy=9))  # type: ignore[arg-type]
    validate(context(user=1, group=1))


def test_message_for_the_status() -> None:
    message = ResolvedUser(1, 2, (2, 3)).message().linux
    assert (message.uid, message.gid, list(message.supplemental_groups)) == (1, 2, [2, 3])


@given(st.binary(max_size=400))
def test_parsers_take_anything(content: bytes) -> None:
    assert all(entry.uid >= 0 for entry in parse_passwd(content))
    assert all(entry.gid >= 0 for entry in parse_group(content))


names = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=8)


@given(st.lists(st.tuples(names, st.integers(0, MAX_ID), st.integers(0, MAX_ID))))
def test_passwd_round_trip(entries: list[tuple[str, int, int]]) -> None:
    content = "\n".join(f"{n}:x:{u}:{g}::/home/{n}:/bin/sh" for n, u, g in entries).encode()
    assert [(e.name, e.uid, e.gid) for e in parse_passwd(content)] == entries
