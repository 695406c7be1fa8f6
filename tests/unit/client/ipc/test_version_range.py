"""Versions that both sides speak: the newest of them is used, and an error names the nearest ones."""

from __future__ import annotations

import pytest

from fastn_p2p_client.ipc.version_range import VersionRange


@pytest.mark.parametrize(
    ("one", "two", "common", "nearest"),
    [
        ((1, 1), (1, 1), 1, (1, 1)),
        ((1, 3), (2, 5), 3, (3, 5)),
        ((1, 9), (2, 5), 5, (9, 5)),
        ((1, 2), (3, 4), None, (2, 3)),
        ((1, 2), (2, 4), 2, (2, 4)),
    ],
)
def test_both_sides_find_the_same_version(
    one: tuple[int, int], two: tuple[int, int], common: int | None, nearest: tuple[int, int]
) -> None:
    first, second = VersionRange(*one), VersionRange(*two)
    assert first.common(second) == second.common(first) == common
    assert (first.nearest(second), second.nearest(first)) == nearest


def test_a_hello_without_a_newest_version_has_one_version() -> None:
    assert VersionRange.of_hello(2, 0) == (2, 2)
    assert VersionRange.of_hello(2, 1) == (2, 2)
    assert VersionRange.of_hello(2, 4) == (2, 4)
