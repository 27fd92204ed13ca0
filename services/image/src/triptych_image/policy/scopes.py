"""Which requirements of a policy apply to an image: the most specific scope."""

from __future__ import annotations

from collections.abc import Iterator

from triptych_oci import Reference

from triptych_image.policy.document import Policy, Requirements

_TRANSPORT = "docker"


def requirements_for(policy: Policy, reference: Reference) -> tuple[Requirements, str]:
    """The requirements for an image, and the name of their place in the policy for errors."""
    scopes = policy.transports.get(_TRANSPORT, {})
    for scope in candidates(reference):
        if scope in scopes:
            return scopes[scope], f"transports.{_TRANSPORT}[{scope!r}]"
    return policy.default, "default"


def candidates(reference: Reference) -> Iterator[str]:
    """Scopes that cover a reference, the most specific first (containers-policy.json(5), "docker:")."""
    if reference.digest is not None:
        yield f"{reference.name}@{reference.digest}"
    else:
        yield f"{reference.name}:{reference.tag}"
    name = reference.name
    while name:
        yield name
        name = name.rpartition("/")[0]
    host = reference.domain.partition(":")[0]
    while "." in host:
        host = host.partition(".")[2]
        yield f"*.{host}"
    yield ""
