"""triptych.image.v1.ImageAdminService/PullImage and /WatchPulls"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from runtime.v1 import api_pb2
from triptych.image.v1 import image_pb2
from triptych_errors import Code, TriptychError
from triptych_oci import Reference

from triptych_image.app import App
from triptych_image.pull.progress import LayerProgress, PullRecord, Stage
from triptych_image.registry import Credentials

_INTERVAL_SECONDS = 0.2


async def pull_with_progress(
    app: App, request: api_pb2.PullImageRequest
) -> AsyncIterator[image_pb2.PullProgress]:
    """Pull an image and tell how far it is, five times a second; the last message has `done`."""
    reference = Reference.parse(request.image.image)
    credentials = Credentials.from_cri(request.auth) if request.HasField("auth") else None
    with app.puller.board.watch() as watch:
        pulling = asyncio.ensure_future(app.puller.pull(reference, credentials))
        try:
            while not pulling.done():
                await asyncio.wait([pulling], timeout=_INTERVAL_SECONDS)
                for record in app.puller.board:
                    if record.reference == str(reference) and not pulling.done():
                        yield to_proto(record)
        finally:
            pulling.cancel()
            await asyncio.wait([pulling])
        ended = [record for record in watch.ended() if record.reference == str(reference)]
    record = ended[-1] if ended else PullRecord(str(reference))
    final = to_proto(record)
    final.done = True
    error = pulling.exception()
    if error is None:
        final.stage = image_pb2.PULL_STAGE_DONE
        final.image_id = pulling.result()
    else:
        _set_error(final, error)
    yield final


async def watch_pulls(app: App) -> AsyncIterator[image_pb2.PullProgress]:
    """Every pull, five times a second while any runs; each ends with one message that has `done`."""
    with app.puller.board.watch() as watch:
        while True:
            for record in app.puller.board:
                yield to_proto(record)
            for record in watch.ended():
                yield to_proto(record)
            await asyncio.sleep(_INTERVAL_SECONDS)


def to_proto(record: PullRecord) -> image_pb2.PullProgress:
    """A pull as it is now."""
    message = image_pb2.PullProgress(
        reference=record.reference,
        stage=_stage(record.stage),
        layers=[_layer(layer) for layer in record.layers],
        done=record.done,
        image_id=record.image_id,
        started_at=record.started_at,
        host=record.host,
    )
    if record.error is not None:
        _set_error(message, record.error)
    return message


def _layer(layer: LayerProgress) -> image_pb2.LayerProgress:
    return image_pb2.LayerProgress(
        digest=layer.digest,
        stage=_stage(layer.stage),
        total_bytes=layer.total,
        received_bytes=layer.received,
        unpacked_bytes=layer.unpacked,
        entries=layer.entries,
    )


def _stage(stage: Stage) -> image_pb2.PullStage.ValueType:
    return image_pb2.PullStage.Value(f"PULL_STAGE_{stage.name}")


def _set_error(message: image_pb2.PullProgress, error: BaseException) -> None:
    message.stage = image_pb2.PULL_STAGE_FAILED
    if isinstance(error, TriptychError):
        message.error, message.error_code = str(error), error.code
    elif isinstance(error, InterruptedError | asyncio.CancelledError):
        message.error, message.error_code = "the pull was stopped: nobody waits for it", Code.CANCELLED
    else:
        message.error, message.error_code = f"{type(error).__name__}: {error}", Code.INTERNAL
