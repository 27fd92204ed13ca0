"""What the settings of the image daemon must be beyond their types."""

from __future__ import annotations

from collections.abc import Iterator

from triptych_oci import InvalidPlatform, Platform
from triptych_service import Problem

from triptych_image.settings import Settings


def check(settings: Settings) -> Iterator[Problem]:
    """What a start would refuse."""
    if settings.pull.platform:
        try:
            Platform.parse(settings.pull.platform)
        except InvalidPlatform:
            text = f"expected os/architecture[/variant], got {settings.pull.platform!r}"
            yield Problem("pull.platform", text)
