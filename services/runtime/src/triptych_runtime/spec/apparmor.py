"""AppArmor profiles of containers."""

from __future__ import annotations

from pathlib import Path

from runtime.v1 import api_pb2
from triptych_errors import FailedPrecondition, NotFound

from triptych_runtime.spec import profiles
from triptych_runtime.spec.facts import HandlerFeatures, HostFacts


def profile_name(
    context: api_pb2.LinuxContainerSecurityContext,
    host: HostFacts,
    handler: HandlerFeatures,
    default: str,
) -> str:
    """`process.apparmorProfile`, or "" for none.

    A container that asks for nothing gets the default profile where the kernel has AppArmor and the profile
    is loaded. Privileged containers get Localhost profiles only.

    :param default: name of the RuntimeDefault profile.
    :raises FailedPrecondition: when a profile is asked for that neither kernel nor handler can apply.
    :raises NotFound: when it is not loaded.
    """
    wanted = profiles.apparmor_of(context)
    if wanted is not None and wanted.kind == profiles.UNCONFINED:
        return "" if not host.apparmor else "unconfined"
    if not (host.apparmor and handler.apparmor):
        if wanted is not None:
            whose = "the kernel has no AppArmor" if not host.apparmor else f"{handler.name} has no AppArmor"
            raise FailedPrecondition(f"apparmor: a profile is asked for, but {whose}")
        return ""
    if wanted is not None and wanted.kind == profiles.LOCALHOST:
        return _loaded(wanted.ref, host)
    if context.privileged:
        return "unconfined"
    if wanted is None:
        return default if default in _profiles(host.apparmor_profiles) else ""
    return _loaded(default, host)


def _loaded(name: str, host: HostFacts) -> str:
    if name not in _profiles(host.apparmor_profiles):
        raise NotFound(f"apparmor: profile {name!r} is not loaded", hint="load it with apparmor_parser -r")
    return name


def _profiles(path: Path) -> set[str]:
    """Names of the loaded profiles: lines "NAME (MODE)"."""
    try:
        text = path.read_text()
    except OSError as error:
        raise FailedPrecondition(f"apparmor: cannot read the loaded profiles: {error}") from error
    return {line.rpartition(" (")[0] for line in text.splitlines()}
