"""Security profiles as the CRI names them: the typed field first, else the deprecated string."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from runtime.v1 import api_pb2
from triptych_errors import InvalidArgument

RUNTIME_DEFAULT: Final = api_pb2.SecurityProfile.RuntimeDefault
UNCONFINED: Final = api_pb2.SecurityProfile.Unconfined
LOCALHOST: Final = api_pb2.SecurityProfile.Localhost
_LOCALHOST_PREFIX: Final = "localhost/"


@dataclass(frozen=True, slots=True)
class Profile:
    """A wanted profile. :ivar ref: name or path of a Localhost one, without "localhost/"."""

    kind: api_pb2.SecurityProfile.ProfileType.ValueType
    ref: str = ""


def wanted(typed: api_pb2.SecurityProfile | None, deprecated: str, field: str) -> Profile | None:
    """The profile asked for, or None when the request says nothing.

    :raises InvalidArgument: for an unknown type or string, or a localhost_ref where none belongs.
    """
    if typed is None:
        return _of_string(deprecated, field)
    if typed.profile_type not in api_pb2.SecurityProfile.ProfileType.values():
        raise InvalidArgument(f"{field}.profile_type: {int(typed.profile_type)} is unknown")
    if typed.profile_type == LOCALHOST:
        if not typed.localhost_ref:
            raise InvalidArgument(f"{field}.localhost_ref is empty, which profile_type Localhost needs")
        return Profile(LOCALHOST, typed.localhost_ref.removeprefix(_LOCALHOST_PREFIX))
    if typed.localhost_ref:
        raise InvalidArgument(f"{field}.localhost_ref is only for profile_type Localhost")
    return Profile(typed.profile_type)


def seccomp_of(
    context: api_pb2.LinuxContainerSecurityContext | api_pb2.LinuxSandboxSecurityContext,
) -> Profile | None:
    """The seccomp profile that a container or pod asks for."""
    typed = context.seccomp if context.HasField("seccomp") else None
    return wanted(typed, context.seccomp_profile_path, "seccomp")


def apparmor_of(
    context: api_pb2.LinuxContainerSecurityContext | api_pb2.LinuxSandboxSecurityContext,
) -> Profile | None:
    """The AppArmor profile that a container or pod asks for; only containers have the deprecated field."""
    typed = context.apparmor if context.HasField("apparmor") else None
    deprecated = (
        context.apparmor_profile if isinstance(context, api_pb2.LinuxContainerSecurityContext) else ""
    )
    return wanted(typed, deprecated, "apparmor")


def _of_string(text: str, field: str) -> Profile | None:
    if not text:
        return None
    if text in ("runtime/default", "docker/default"):
        return Profile(RUNTIME_DEFAULT)
    if text == "unconfined":
        return Profile(UNCONFINED)
    if text.startswith(_LOCALHOST_PREFIX) and text != _LOCALHOST_PREFIX:
        return Profile(LOCALHOST, text.removeprefix(_LOCALHOST_PREFIX))
    raise InvalidArgument(f"{field}: {text!r} is no profile (runtime/default, unconfined or localhost/NAME)")
