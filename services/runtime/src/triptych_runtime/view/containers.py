"""Container and ContainerStatus from a record."""

from __future__ import annotations

from runtime.v1 import api_pb2

from triptych_runtime.model import ContainerPhase, ContainerRecord
from triptych_runtime.spec.signals import enum_of_number


def container_message(record: ContainerRecord) -> api_pb2.Container:
    """An entry of ListContainers."""
    config = record.config
    return api_pb2.Container(
        id=record.id,
        pod_sandbox_id=record.sandbox_id,
        metadata=config.metadata,
        image=config.image,
        image_ref=record.image_ref,
        image_id=record.image_id,
        state=record.state,  # type: ignore[arg-type]
        created_at=record.created_at,
        labels=config.labels,
        annotations=config.annotations,
    )


def container_status(record: ContainerRecord) -> api_pb2.ContainerStatus:
    """The status of a container."""
    config = record.config
    status = api_pb2.ContainerStatus(
        id=record.id,
        metadata=config.metadata,
        state=record.state,  # type: ignore[arg-type]
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        exit_code=record.exit_code,
        image=_image(config.image),
        image_ref=record.image_ref,
        image_id=record.image_id,
        reason=record.reason,
        message=record.message,
        labels=config.labels,
        annotations=config.annotations,
        mounts=record.mounts,
        log_path=record.log_path,
        stop_signal=enum_of_number(record.stop_signal),
    )
    if record.phase is not ContainerPhase.CREATING:
        user = record.user
        status.user.linux.uid, status.user.linux.gid = user.uid, user.gid
        status.user.linux.supplemental_groups.extend(user.groups)
    if record.resources is not None:
        status.resources.linux.CopyFrom(record.resources)
    return status


def _image(spec: api_pb2.ImageSpec) -> api_pb2.ImageSpec:
    """The image as its user named it."""
    if not spec.user_specified_image:
        return spec
    named = api_pb2.ImageSpec()
    named.CopyFrom(spec)
    named.image = spec.user_specified_image
    return named


def match_container(record: ContainerRecord, filter: api_pb2.ContainerFilter) -> bool:
    """Whether a container passes a list's filter: all conditions hold, labels exactly."""
    if filter.id and not record.id.startswith(filter.id):
        return False
    if filter.pod_sandbox_id and not record.sandbox_id.startswith(filter.pod_sandbox_id):
        return False
    if filter.HasField("state") and record.state != filter.state.state:
        return False
    labels = record.config.labels
    return all(labels.get(key) == value for key, value in filter.label_selector.items())
