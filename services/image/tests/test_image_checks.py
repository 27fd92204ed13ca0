"""What the image daemon refuses in its settings, and what it takes."""

from __future__ import annotations

import pytest
from triptych_image.checks import check
from triptych_image.settings import PullSettings, Settings


@pytest.mark.parametrize("platform", ["", "linux/amd64", "linux/arm/v7"])
def test_a_platform_is_taken(platform: str) -> None:
    assert not list(check(Settings(pull=PullSettings(platform=platform))))


@pytest.mark.parametrize("platform", ["linux", "linux/", "a/b/c/d"])
def test_a_platform_that_is_none_is_told(platform: str) -> None:
    (problem,) = check(Settings(pull=PullSettings(platform=platform)))
    assert problem.key == "pull.platform"
    assert problem.text == f"expected os/architecture[/variant], got {platform!r}"
