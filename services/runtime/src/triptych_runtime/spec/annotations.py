"""Annotations of the document, for runtimes that read them (Kata, gVisor) and for people."""

from __future__ import annotations

from fnmatch import fnmatchcase

from triptych_runtime.spec.inputs import ContainerInputs, SandboxContext

_CRI = "io.kubernetes.cri."


def build(sandbox: SandboxContext, inputs: ContainerInputs) -> dict[str, str]:
    """containerd's io.kubernetes.cri.*, and those of pod and container that the handler is to get."""
    meta = sandbox.config.metadata
    patterns = inputs.passthrough_annotations
    result = {
        key: value
        for source in (sandbox.config.annotations, inputs.config.annotations)
        for key, value in source.items()
        if any(fnmatchcase(key, pattern) for pattern in patterns)
    }
    image = inputs.config.image
    result |= {
        _CRI + "container-type": "container",
        _CRI + "sandbox-id": sandbox.sandbox_id,
        _CRI + "sandbox-name": meta.name,
        _CRI + "sandbox-namespace": meta.namespace,
        _CRI + "sandbox-uid": meta.uid,
        _CRI + "container-name": inputs.config.metadata.name,
        _CRI + "image-name": image.user_specified_image or inputs.image_ref or image.image,
        "io.container.manager": "triptych",
    }
    return result | dict(inputs.annotations)
