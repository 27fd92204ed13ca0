"""Putting the document together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from triptych_runtime.spec.facts import HandlerFeatures, HostFacts
from triptych_runtime.spec.inputs import ContainerInputs, ContainerSpec, Document, SandboxContext


def build_container_spec(
    host: HostFacts, handler: HandlerFeatures, sandbox: SandboxContext, inputs: ContainerInputs
) -> ContainerSpec:
    """The OCI runtime-spec document of a container, and what must exist before it is created.

    Reads files only: the image's passwd and group, seccomp profiles, CDI specs, the mount table, and stats of
    the request's host paths and devices. A few milliseconds at most; changes nothing.

    :raises InvalidArgument: when a field of the request cannot be honoured as given; names the field.
    :raises FailedPrecondition: when the host or the handler lacks what the request needs.
    :raises NotFound: when a profile, device or CDI device that it names does not exist.
    """
    raise NotImplementedError


def build_exec_process(
    process: Document, command: Sequence[str], *, tty: bool, env: Mapping[str, str] | None = None
) -> Document:
    """The process document of an exec in a container, from `document["process"]` of its config.json.

    User, capabilities, labels, limits and environment are those of the container; `tty` sets the terminal,
    and TERM where the container has none.
    """
    raise NotImplementedError


def encode(document: Document) -> bytes:
    """The document as JSON (UTF-8)."""
    raise NotImplementedError
