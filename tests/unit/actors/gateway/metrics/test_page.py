"""The page with the metrics is what Prometheus reads, has every metric of the catalogue, and no label of others."""

from __future__ import annotations

import re
import typing

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from fastn_p2p_actors.gateway.metrics.metric_catalogue import METRICS, PREFIX, exposed_names
from fastn_p2p_actors.gateway.metrics.page import page_of
from fastn_p2p_actors.gateway.metrics.samples import samples_of
from fastn_p2p_actors.network.admin_messages import CallFigures, NetworkFigures
from fastn_p2p_actors.network.call_counters import APPLICATION, BOUNDS, CallCounters
from fastn_p2p_client.errors import CODES
from fastn_p2p_client.ipc import messages as m
from tests.docs.tables import ROOT

IDENTITY = m.IdentityStatus(
    name="alice",
    id52="i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60",
    online=True,
    wanted=True,
    bindings=[m.BindingStatus(protocol="Echo", instance="default", access=["bob"], state="serving", calls=7, errors=1)],
    delegation_expires_ms=3_600_000,
    publications=[
        m.PublicationStatus(place="this machine", age_ms=2500),
        m.PublicationStatus(place="https://d.example/pkarr", age_ms=None, problem='it "refuses"\nall'),
    ],
)
PROCESS = m.ProcessStatus(
    name="network", pid=7, state="ready", uptime_ms=1, restarts=3, memory=2**25, cpu_ms=1500, sandbox="closed"
)
STATUS = m.Status(
    version="0.1.0", home="/h", network_mode="lan", endpoint="ab" * 32, addresses=[], uptime_ms=12_500, clients=2,
    processes=[PROCESS], identities=[IDENTITY], peers=[], connections=[], warnings=["of bob"], identities_total=1,
    peers_total=4, relays=["https://r.example"], vault=m.VaultInfo(encrypted=True, locked=False),
)  # fmt: skip


def figures(made: CallCounters) -> NetworkFigures:
    calls = CallFigures(made.ended, 2, made.durations, made.seconds, made.errors)
    return NetworkFigures(
        made=calls, served=calls, sessions_opened=1, sessions_arrived=2, open_sessions=3, served_sessions=4, sent=5,
        received=6, connections_opened=7, connections_accepted=8, dials=9, paths={"direct": 1, "relayed": 0},
        silent=0, waiting={"strangers": (1, 2), "peers": (3, 4), "programs": (5, 6)},
    )  # fmt: skip


def read(page: bytes) -> dict[str, dict[tuple[str, ...], float]]:
    """Return the values of a page by name of the sample and values of its labels, in the order of their names."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            labels = tuple(sample.labels[name] for name in sorted(sample.labels))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_the_page_has_every_metric() -> None:
    made = CallCounters()
    for seconds, code in ((0.0004, ""), (0.02, "denied"), (99.0, APPLICATION)):
        made.answer(seconds)
        if code:
            made.fail(code)
    made.refuse("overloaded")
    found = read(page_of(samples_of(STATUS, figures(made), 10**9)))
    assert set(found) == {exposed for name in METRICS for exposed in exposed_names(name)}
    assert found["fastn_p2p_calls_total"] == {("made",): 4, ("served",): 4}
    assert found["fastn_p2p_call_errors_total"]["denied", "made"] == 1
    assert found["fastn_p2p_call_duration_seconds_count"]["made",] == 3
    assert found["fastn_p2p_call_duration_seconds_sum"]["made",] == pytest.approx(99.0204)
    buckets = found["fastn_p2p_call_duration_seconds_bucket"]
    assert [buckets["made", each] for each in ("0.0005", "0.01", "0.025", "60.0", "+Inf")] == [1, 1, 2, 2, 3]
    assert found["fastn_p2p_identity_record_age_seconds"] == {("alice", "this machine"): 2.5}
    assert found["fastn_p2p_identity_record_problem"]["alice", "https://d.example/pkarr"] == 1
    assert found["fastn_p2p_process_restarts_total"] == {("network",): 3}
    assert found["fastn_p2p_info"] == {("lan", "0.1.0"): 1}
    assert found["fastn_p2p_disk_free_bytes"] == {(): 10**9}


def test_the_page_lacks_what_an_actor_does_not_answer() -> None:
    lost = msgspec.structs.replace(STATUS, processes=[], vault=None)
    found = read(page_of(samples_of(lost, None, None)))
    answers = {process: value for (process,), value in found["fastn_p2p_answers"].items()}
    assert answers == {"network": 0, "vault": 0, "supervisor": 0}
    assert "fastn_p2p_calls_total" not in found


def test_a_peer_chooses_no_label() -> None:
    counters = CallCounters()
    for number in range(1000):
        counters.fail(f"made-up-{number}")
    counters.fail("denied")
    assert counters.errors == {"unknown": 1000, "denied": 1}
    for code in CODES:
        counters.fail(code)
    assert set(counters.errors) == {*CODES, "unknown"}
    labels = {label for each in METRICS.values() for label in each.labels}
    assert labels.isdisjoint({"peer", "endpoint", "id52", "address", "kind", "text", "reason"})


def test_every_bound_has_a_slot() -> None:
    counters = CallCounters()
    for bound in BOUNDS:
        counters.answer(bound)
    counters.answer(BOUNDS[-1] + 1)
    assert counters.durations == [1] * (len(BOUNDS) + 1)


@pytest.mark.parametrize("file", ["alerts.yml", "dashboard.json"])
def test_dashboard_and_alerts_use_metrics_that_exist(file: str) -> None:
    text = (ROOT / "deploy/prometheus" / file).read_text()
    used = set(re.findall(rf"\b{PREFIX}\w+", text))
    assert used - {exposed for name in METRICS for exposed in exposed_names(name)} == set()
    assert len(used) > 10
    labels = set(re.findall(r"\$labels\.(\w+)|\{\{(\w+)\}\}|\b(?:by|on) \(([\w, ]+)\)", text))
    named = {name for groups in labels for each in groups for name in each.split(", ") if name}
    known = {label for each in METRICS.values() for label in each.labels} | {"instance", "le"}
    assert named - known == set()


def test_dashboard_is_complete() -> None:
    dashboard = msgspec.json.decode((ROOT / "deploy/prometheus/dashboard.json").read_bytes())
    panels = typing.cast("list[dict[str, typing.Any]]", dashboard["panels"])
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["targets"] and panel["title"] for panel in panels)
