"""Token buckets: take, refill, and the bounded number that is remembered."""

from __future__ import annotations

import pytest

from fastn_p2p_actors.runtime.rate_limiter import Rate, RateLimiter, TokenBucket


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(Rate(8, 5), 100.0)
    assert [bucket.try_spend(100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [bucket.try_spend(100.125) for _ in range(2)] == [True, False]
    assert sum(bucket.try_spend(1000.0) for _ in range(20)) == 5, "no more than the burst, however long nobody took any"


def test_a_clock_that_stands_or_runs_backwards_gives_nothing() -> None:
    bucket = TokenBucket(Rate(8, 1), 100.0)
    assert bucket.try_spend(100.0)
    assert not bucket.try_spend(50.0)
    assert not bucket.try_spend(100.0)
    assert bucket.try_spend(100.125)


def test_overdrawn_tokens_are_owed() -> None:
    bucket = TokenBucket(Rate(1, 5), 0.0)
    bucket.spend(0.0, 8)
    assert bucket.left(2.0) == pytest.approx(-1)
    assert not bucket.try_spend(3.5)
    assert bucket.try_spend(4.0)


def test_keys_have_buckets_of_their_own() -> None:
    limiter: RateLimiter[str] = RateLimiter(Rate(1, 2), 10)
    assert [limiter.try_spend("a", 0.0) for _ in range(3)] == [True, True, False]
    assert limiter.try_spend("b", 0.0)


def test_full_buckets_are_not_kept() -> None:
    limiter: RateLimiter[int] = RateLimiter(Rate(1, 2), 1000)
    for key in range(10_000):
        assert limiter.try_spend(key, float(key))
    assert len(limiter) < 10


def test_a_flood_of_keys_takes_no_memory_and_no_tokens_of_one_in_use() -> None:
    limiter: RateLimiter[object] = RateLimiter(Rate(0.001, 3), 100)
    for _ in range(3):
        assert limiter.try_spend("used", 0.0)
    for key in range(10_000):
        limiter.try_spend(key, 1.0)
        assert not limiter.try_spend("used", 1.0), "its bucket was never forgotten"
    assert len(limiter) <= 100
