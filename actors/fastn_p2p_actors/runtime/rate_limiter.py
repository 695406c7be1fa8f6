"""Token buckets by key, in a table of bounded size.

A bucket holds up to ``burst`` tokens and gains ``per_second`` tokens each second. An event takes some of them. The
table keeps only buckets that are not full, because a full bucket equals a new one. If more keys than the table holds
are below full, the least recently used one is forgotten. A flood from very many keys can therefore renew its burst. It
never takes memory, and never the tokens of a key that is in use.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)

_SWEPT: Final = 8
"""Oldest buckets that are checked for each new key; full ones are removed."""


class Rate(NamedTuple):
    """Tokens per second, and tokens that a full bucket holds."""

    per_second: float
    burst: float


class TokenBucket:
    """Token bucket. ``now`` is any clock in seconds that does not run backwards."""

    __slots__ = ("_at", "_rate", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens = rate.burst
        self._at = now

    def left(self, now: float) -> float:
        """Return the tokens in the bucket; negative after ``spend`` took more than there were."""
        if now > self._at:
            self._tokens = min(self._rate.burst, self._tokens + (now - self._at) * self._rate.per_second)
            self._at = now
        return self._tokens

    def is_full(self, now: float) -> bool:
        return self.left(now) >= self._rate.burst

    def try_spend(self, now: float, cost: float = 1) -> bool:
        """Take ``cost`` tokens if the bucket has them. Return whether it had."""
        if self.left(now) < cost:
            return False
        self._tokens -= cost
        return True

    def spend(self, now: float, cost: float) -> None:
        """Take ``cost`` tokens, even if the bucket does not have them."""
        self.left(now)
        self._tokens -= cost


class RateLimiter(Generic[Key]):
    """Buckets of the same rate, one for each key.

    Args:
        rate: rate of every bucket.
        most: buckets in the table.
    """

    __slots__ = ("_buckets", "_most", "rate")

    def __init__(self, rate: Rate, most: int) -> None:
        self.rate = rate
        self._most = most
        self._buckets: OrderedDict[Key, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def try_spend(self, key: Key, now: float, cost: float = 1) -> bool:
        """Take ``cost`` tokens of the key's bucket if it has them. Return whether it had."""
        return self.bucket(key, now).try_spend(now, cost)

    def bucket(self, key: Key, now: float) -> TokenBucket:
        """Return the key's bucket, and mark it as the most recently used one."""
        found = self._buckets.get(key)
        if found is not None:
            self._buckets.move_to_end(key)
            return found
        self._make_room(now)
        made = self._buckets[key] = TokenBucket(self.rate, now)
        return made

    def _make_room(self, now: float) -> None:
        """Make room for one more bucket."""
        for _ in range(min(_SWEPT, len(self._buckets))):
            oldest = next(iter(self._buckets))
            if not self._buckets[oldest].is_full(now):
                break
            del self._buckets[oldest]
        if len(self._buckets) >= self._most:
            self._buckets.popitem(last=False)
