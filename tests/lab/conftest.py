"""Fixtures of the laboratory. Its tests are skipped where it cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab.host import Host
from tests.lab.lab import Lab, reason_to_skip
from tests.lab.router import NatKind, Router
from tests.lab.segment import Segment

_reasons: list[str] = []


def pytest_runtest_setup() -> None:
    """Skip what cannot run here, before its fixtures are made."""
    if not _reasons:
        _reasons.append(reason_to_skip())
    if _reasons[0]:
        pytest.skip(_reasons[0])


@dataclass
class TwoHomes:
    """The usual shape: alice and bob behind a router each, and a relay and a public host at the network of both."""

    lab: Lab
    home_a: Router
    """Outside 198.51.100.11, LAN 10.1.0.0/24."""
    home_b: Router
    """Outside 198.51.100.12, LAN 10.2.0.0/24."""
    alice: Host
    bob: Host
    relay: Host
    """198.51.100.1"""
    public: Host
    """198.51.100.20"""


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A laboratory of the test's own, empty but for ``lab.net``."""
    with Lab() as lab:
        yield lab


@pytest.fixture
def nat_kinds() -> tuple[NatKind, NatKind]:
    """Kinds of the two routers of ``two_homes``. Override by ``@pytest.mark.parametrize("nat_kinds", ...)``."""
    return "cone", "cone"


@pytest.fixture
def two_homes(lab: Lab, nat_kinds: tuple[NatKind, NatKind]) -> TwoHomes:
    """alice and bob in their homes; see ``TwoHomes``."""
    home_a, home_b = (lab.router(kind, wait=False) for kind in nat_kinds)
    homes = TwoHomes(
        lab,
        home_a,
        home_b,
        lab.host("alice", home_a.lan),
        lab.host("bob", home_b.lan),
        lab.host("relay", lab.net, address="198.51.100.1"),
        lab.host("public", lab.net, address="198.51.100.20"),
    )
    home_a.wait_ready()
    home_b.wait_ready()
    return homes


@pytest.fixture
def office(lab: Lab) -> Segment:
    """A LAN without a router: no internet."""
    return lab.lan()
