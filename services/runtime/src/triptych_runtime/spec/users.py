"""Who a container's process runs as, by the image's own passwd and group files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from runtime.v1 import api_pb2
from triptych_errors import InvalidArgument

from triptych_runtime.spec.inputs import ResolvedUser
from triptych_runtime.spec.rootfs import RootfsView

# runc takes IDs up to 2^31-1, the kernel up to 2^32-2; what both take is what a container may ask for.
MAX_ID: Final = (1 << 31) - 1


@dataclass(frozen=True, slots=True)
class PasswdEntry:
    """A line of passwd(5)."""

    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class GroupEntry:
    """A line of group(5)."""

    name: str
    gid: int
    members: tuple[str, ...]


def parse_passwd(content: bytes) -> Iterator[PasswdEntry]:
    """The well-formed lines of a passwd file; others are skipped, as libc does."""
    for fields in _lines(content):
        if len(fields) >= 4 and fields[2].isdecimal() and fields[3].isdecimal():
            home = fields[5] if len(fields) > 5 else ""
            yield PasswdEntry(fields[0], int(fields[2]), int(fields[3]), home)


def parse_group(content: bytes) -> Iterator[GroupEntry]:
    """The well-formed lines of a group file; others are skipped, as libc does."""
    for fields in _lines(content):
        if len(fields) >= 3 and fields[2].isdecimal():
            members = fields[3].split(",") if len(fields) > 3 else []
            yield GroupEntry(fields[0], int(fields[2]), tuple(m.strip() for m in members if m.strip()))


def resolve_user(
    context: api_pb2.LinuxContainerSecurityContext, image_user: str, files: RootfsView
) -> ResolvedUser:
    """The IDs of the process.

    run_as_username wins over run_as_user, and either over the image's User ("user", "uid", "user:group",
    "uid:gid", "uid:group", "user:gid"). A uid without a passwd entry has group 0. The group list always
    holds the primary group, then (policy Merge) those of the image's group file that name the user, then
    supplemental_groups (where the kubelet puts fsGroup); sorted.

    :raises InvalidArgument: for a user or group that the image does not know, or an ID out of range.
    """
    text, field = _user_text(context, image_user)
    user, _, group = text.partition(":")
    if text.count(":") > 1:
        raise InvalidArgument(f"{field}: {text!r} is not user or user:group")
    database = _Database(files)
    entry, uid = _find_user(database, user, field)
    if group:
        gid = _find_group(database, group, field)
    else:
        gid = entry.gid if entry is not None else 0
    groups = {gid, *(_checked(g, "supplemental_groups") for g in context.supplemental_groups)}
    if context.supplemental_groups_policy == api_pb2.Merge:
        member = _member_name(database, user, entry)
        if member is not None:
            groups.update(g.gid for g in database.groups() if member in g.members)
    return ResolvedUser(uid, _checked(gid, field), tuple(sorted(groups)))


def validate(context: api_pb2.LinuxContainerSecurityContext) -> None:
    """The checks that need no image.

    :raises InvalidArgument: naming the field.
    """
    if context.HasField("run_as_group") and not (context.HasField("run_as_user") or context.run_as_username):
        raise InvalidArgument("run_as_group is set without run_as_user or run_as_username")
    if context.HasField("run_as_user"):
        _checked(context.run_as_user.value, "run_as_user")
    if context.HasField("run_as_group"):
        _checked(context.run_as_group.value, "run_as_group")
    for group in context.supplemental_groups:
        _checked(group, "supplemental_groups")
    if context.supplemental_groups_policy not in api_pb2.SupplementalGroupsPolicy.values():
        raise InvalidArgument(
            f"supplemental_groups_policy: {context.supplemental_groups_policy} is not Merge or Strict"
        )


def _user_text(context: api_pb2.LinuxContainerSecurityContext, image_user: str) -> tuple[str, str]:
    if context.run_as_username:
        text, field = context.run_as_username, "run_as_username"
    elif context.HasField("run_as_user"):
        text, field = str(_checked(context.run_as_user.value, "run_as_user")), "run_as_user"
    elif context.HasField("run_as_group"):
        raise InvalidArgument("run_as_group is set without run_as_user or run_as_username")
    else:
        return image_user or "0", "the image's User"
    if context.HasField("run_as_group"):
        text = f"{text}:{_checked(context.run_as_group.value, 'run_as_group')}"
    return text, field


class _Database:
    """The image's user database, read at most once."""

    __slots__ = ("_files", "_groups", "_users")

    def __init__(self, files: RootfsView) -> None:
        self._files = files
        self._users: list[PasswdEntry] | None = None
        self._groups: list[GroupEntry] | None = None

    def users(self) -> list[PasswdEntry]:
        if self._users is None:
            self._users = list(parse_passwd(self._files.read("/etc/passwd") or b""))
        return self._users

    def groups(self) -> list[GroupEntry]:
        if self._groups is None:
            self._groups = list(parse_group(self._files.read("/etc/group") or b""))
        return self._groups


def _find_user(database: _Database, user: str, field: str) -> tuple[PasswdEntry | None, int]:
    number = _number(user)
    if number is not None:
        uid = _checked(number, field)
        return next((e for e in database.users() if e.uid == uid), None), uid
    entry = next((e for e in database.users() if e.name == user), None)
    if entry is None:
        raise InvalidArgument(f"{field}: the image's /etc/passwd has no user {user!r}")
    return entry, _checked(entry.uid, field)


def _find_group(database: _Database, group: str, field: str) -> int:
    number = _number(group)
    if number is not None:
        return _checked(number, field)
    entry = next((g for g in database.groups() if g.name == group), None)
    if entry is None:
        raise InvalidArgument(f"{field}: the image's /etc/group has no group {group!r}")
    return entry.gid


def _member_name(database: _Database, user: str, entry: PasswdEntry | None) -> str | None:
    if entry is not None:
        return entry.name
    return user if _number(user) is None else None


def _number(text: str) -> int | None:
    digits = text[1:] if text[:1] in ("+", "-") else text
    return int(text) if digits.isascii() and digits.isdecimal() else None


def _checked(value: int, field: str) -> int:
    if not 0 <= value <= MAX_ID:
        raise InvalidArgument(f"{field}: {value} is not between 0 and {MAX_ID}")
    return value


def _lines(content: bytes) -> Iterator[list[str]]:
    for line in content.decode(errors="surrogateescape").splitlines():
        text = line.strip()
        if text and not text.startswith("#"):
            yield text.split(":")
