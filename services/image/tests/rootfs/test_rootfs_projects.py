"""Numbers of quota projects."""

from __future__ import annotations

from triptych_image.rootfs import quota


def test_each_number_is_another_one() -> None:
    projects = quota.Projects(0)
    first, second = projects.take(set()), projects.take(set())
    assert first != second  # nobody has stored the first one yet
    assert projects.take({second + 1}) == second + 2
    assert projects.take(set()) not in (first, second)  # what was removed is not all gone yet


def test_numbers_stay_in_their_range() -> None:
    last = quota.FIRST_PROJECT + (1 << 24) - 1
    for start in (-1, (1 << 24) - 1, (1 << 60) - 1):
        projects = quota.Projects(start)
        assert (projects.take(set()), projects.take(set())) == (last, quota.FIRST_PROJECT)
