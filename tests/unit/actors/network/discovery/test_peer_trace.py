"""Advice of ``explain``: the one thing to do, for each reason why there is no connection."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from fastn_p2p_actors.network.discovery.peer_trace import PeerTracer, _Causes
from fastn_p2p_client.errors import (
    DelegationExpired,
    DelegationNotYetValid,
    IdentityRevoked,
    P2PError,
    PeerBlocked,
    PeerOffline,
    PeerUnknown,
    PeerUnreachable,
)
from fastn_p2p_client.ipc.messages import PeerTrace, TraceAttempt, TraceRecord, TraceSource
from tests.support.signer import Signer

BOB = Signer("bob").key.id52
HERE = TraceSource(name="address book", records=[])
UNKNOWN = PeerUnknown(peer=BOB)
SILENT = PeerUnreachable(peer=BOB, reason="tried 192.0.2.1:1 for 8.0 s: no answer yet")


def asked(problem: str = "", *records: TraceRecord) -> TraceSource:
    return TraceSource(name="LAN", records=list(records), problem=problem, ms=5)


def record(error: P2PError | None = None) -> TraceRecord:
    return TraceRecord(signed_ms=1, endpoints=1, problem=str(error or ""))


@pytest.mark.parametrize(
    ("problem", "sources", "network", "advice"),
    [
        (PeerOffline(peer=BOB), [HERE, asked("", record())], True, "fastn-p2p identity-online NAME"),
        (UNKNOWN, [HERE, asked("no interface")], False, "connect this machine to a network"),
        (UNKNOWN, [HERE], True, "--network lan"),
        (UNKNOWN, [HERE, asked("refused")], True, "because LAN did not answer: fastn-p2p netcheck"),
        (UNKNOWN, [HERE, asked()], True, "for a ticket"),
        (UNKNOWN, [HERE, asked("", record(DelegationNotYetValid(identity=BOB, seconds=90)))], True, "set the clock"),
        (
            UNKNOWN,
            [asked("", record(DelegationExpired(identity=BOB, seconds=90)))],
            True,
            "every address is out of date",
        ),
        (SILENT, [asked("", record())], True, "whether its daemon runs"),
        (PeerBlocked(peer="bob"), [asked("", record())], True, f"fastn-p2p peer unblock {BOB}"),
        (IdentityRevoked(identity=BOB, revoked="2026", successor=""), [HERE], True, "ask its owner for the new ID52"),
    ],
)
def test_each_reason_has_its_advice(problem: P2PError, sources: list[TraceSource], network: bool, advice: str) -> None:
    router = SimpleNamespace(local_problem=lambda: "" if network else "this machine has no network")
    tracer = PeerTracer.__new__(PeerTracer)
    tracer._router, tracer._mode = cast(Any, router), "internet"
    trace = PeerTrace(peer=BOB, kind="ID52", id52=BOB, sources=sources)
    early = "set the clock" in advice
    assert advice in tracer._advice(trace, problem, _Causes(refused=False, early=early))


@pytest.mark.parametrize(
    ("mode", "address", "refused", "advice"),
    [
        ("local", "10.2.0.30:4000", False, "--network internet"),
        ("local", "127.0.0.1:4000", False, "whether its daemon runs"),
        ("lan", "10.2.0.30:4000", False, "whether its daemon runs"),
        ("lan", "10.2.0.30:4000", True, "blocked you"),
        ("lan", "", False, "--network internet"),
        ("internet", "", False, "whether its daemon runs"),
    ],
)
def test_the_mode_and_a_refusal_have_their_advice(mode: str, address: str, refused: bool, advice: str) -> None:
    """Without an address there is a relay."""
    tracer = PeerTracer.__new__(PeerTracer)
    tracer._router, tracer._mode = cast(Any, SimpleNamespace(local_problem=str)), mode
    addresses, relays = ([address], []) if address else ([], ["https://relay.example/"])
    attempt = TraceAttempt(endpoint="", addresses=addresses, relays=relays, ms=1, result="")
    trace = PeerTrace(peer=BOB, kind="ID52", id52=BOB, sources=[asked("", record())], attempts=[attempt])
    assert advice in tracer._advice(trace, SILENT, _Causes(refused=refused, early=False))
