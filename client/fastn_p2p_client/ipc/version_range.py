"""``VersionRange``: the versions of a protocol that one side speaks, and which of them both sides use.

A hello has the oldest version in the field ``version``, because a receiver of before there were ranges compares that
field alone with its only version. The newest one is in a field at the end, which such a sender leaves out.
"""

from __future__ import annotations

from typing import NamedTuple


class VersionRange(NamedTuple):
    """Versions that one side speaks, both ends included."""

    oldest: int
    newest: int

    @classmethod
    def of_hello(cls, version: int, newest: int) -> VersionRange:
        """Return the range of a hello's fields. A sender of before there were ranges speaks ``version`` alone."""
        return cls(version, max(version, newest))

    def common(self, other: VersionRange) -> int | None:
        """Return the version that both sides use, which is the newest that both speak; None if there is none."""
        version = min(self.newest, other.newest)
        return version if version >= max(self.oldest, other.oldest) else None

    def nearest(self, other: VersionRange) -> int:
        """Return the own version that is nearest to those of another range, for an error that names one of each."""
        return self.oldest if other.newest < self.oldest else self.newest
