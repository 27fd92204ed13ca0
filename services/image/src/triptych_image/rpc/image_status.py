"""runtime.v1.ImageService/ImageStatus"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from runtime.v1 import api_pb2
from triptych_oci import chain_id

from triptych_image.app import App
from triptych_image.errors import ImageNotFound
from triptych_image.rpc.images import to_cri
from triptych_image.store import ImageKind, ImageRecord


async def image_status(app: App, request: api_pb2.ImageStatusRequest) -> api_pb2.ImageStatusResponse:
    """One image; the answer is empty when it is not there."""
    image = app.find(request.image.image)
    if image is None:
        return api_pb2.ImageStatusResponse()
    response = api_pb2.ImageStatusResponse(image=to_cri(app, image))
    if request.verbose:
        response.info["info"] = json.dumps(await asyncio.to_thread(_info, app, image))
    return response


def _info(app: App, image: ImageRecord) -> dict[str, Any]:
    """The keys that crictl users know from containerd, and what the store adds."""
    snapshot = app.store.snapshot
    layers = [snapshot.layers[key] for key in image.layers if key in snapshot.layers]
    info: dict[str, Any] = {
        "kind": image.kind.value,
        "manifest": image.manifest,
        "source": image.source,
        "createdAt": image.created_at,
        "layers": [
            {
                "diffID": layer.diff_id,
                "path": str(app.store.paths.layer(layer.key)),
                "size": layer.size,
                "inodes": layer.inodes,
            }
            for layer in layers
        ],
    }
    if image.kind is ImageKind.IMAGE:
        try:
            config = json.loads(app.store.read_blob(image.config))
        except (ImageNotFound, ValueError):
            return info
        info["imageSpec"] = config
        info["chainID"] = str(chain_id(config["rootfs"]["diff_ids"]))
    return info
