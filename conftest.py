"""What every test of the repository shares."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# The machines are shared and noisy: how long an example takes says nothing about the code.
_NOISY = [HealthCheck.too_slow]
settings.register_profile("here", deadline=None, suppress_health_check=_NOISY)
settings.register_profile("ci", deadline=None, suppress_health_check=_NOISY, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")
