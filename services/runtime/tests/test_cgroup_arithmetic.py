"""Conversions between the numbers of cgroup v1 and v2."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from triptych_runtime.cgroups import BadResources, arithmetic


@pytest.mark.parametrize(
    ("shares", "weight"),
    # The table of the crun and runc documents for the curve.
    [
        (1, 1),
        (2, 1),
        (102, 17),
        (256, 35),
        (512, 59),
        (1024, 100),
        (2048, 174),
        (262144, 10000),
        (999999, 10000),
    ],
)
def test_weight_from_shares(shares: int, weight: int) -> None:
    assert arithmetic.weight_from_shares(shares) == weight


@given(st.integers(2, 262_144), st.integers(2, 262_144))
def test_weight_keeps_order(a: int, b: int) -> None:
    if a <= b:
        assert arithmetic.weight_from_shares(a) <= arithmetic.weight_from_shares(b)


def test_swap_max() -> None:
    assert arithmetic.swap_max(100, 150) == 50
    assert arithmetic.swap_max(100, 100) == 0
    assert arithmetic.swap_max(100, -1) == -1
    with pytest.raises(BadResources, match="less than"):
        arithmetic.swap_max(100, 50)
    with pytest.raises(BadResources, match="needs"):
        arithmetic.swap_max(-1, 50)


def test_quota_per_second_rounds_up_to_whole_percents() -> None:
    assert arithmetic.quota_per_second(50_000, 100_000) == 500_000
    assert arithmetic.quota_per_second(33_333, 100_000) == 340_000
