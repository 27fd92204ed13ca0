"""What every test of the repository shares."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from triptych_dev.patience import PATIENCE

# The machines are shared and noisy: how long an example takes says nothing about the code.
_NOISY = [HealthCheck.too_slow]
settings.register_profile("here", deadline=None, suppress_health_check=_NOISY)
settings.register_profile("ci", deadline=None, suppress_health_check=_NOISY, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where everything is slow, tests with a limit of time of their own get more of it."""
    for item in items:
        limit = item.get_closest_marker("timeout")
        if PATIENCE > 1 and limit is not None and limit.args:
            item.add_marker(pytest.mark.timeout(limit.args[0] * PATIENCE), append=False)
