"""The three daemons' settings, each by the daemon's short name."""

from __future__ import annotations

from triptych_image.settings import Settings as ImageSettings
from triptych_runtime.settings import Settings as RuntimeSettings
from triptych_service.settings import Table
from triptych_streaming.settings import Settings as StreamingSettings

SETTINGS: dict[str, type[Table]] = {
    "image": ImageSettings,
    "runtime": RuntimeSettings,
    "streaming": StreamingSettings,
}
