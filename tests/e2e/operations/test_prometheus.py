"""A Prometheus scrapes a daemon under load: each query of the dashboard has an answer, and each alert rule is sound."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from fastn_p2p_client.client import Client
from fastn_p2p_client.errors import ApplicationError
from tests.docs.tables import ROOT
from tests.support.daemons import Daemon, eventually
from tests.support.ports import free_port
from tests.support.protocols import install_protocols
from tests.support.two_daemons import add_identity

PROGRAMS: Final = shutil.which("prometheus"), shutil.which("promtool")
pytestmark = [
    pytest.mark.lab_long,
    pytest.mark.skipif(None in PROGRAMS, reason="no Prometheus here: apt install prometheus"),
]
FOLDER: Final = ROOT / "deploy/prometheus"
DASHBOARD: Final[dict[str, Any]] = json.loads((FOLDER / "dashboard.json").read_bytes())
QUERIES: Final = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
CONFIG: Final = """
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: fastn-p2p
    static_configs: [{{targets: ["{target}"]}}]
"""


class Prometheus:
    """A Prometheus that scrapes one daemon each second."""

    def __init__(self, folder: Path, target: str) -> None:
        self.config = folder / "prometheus.yml"
        self.config.write_text(CONFIG.format(rules=FOLDER / "alerts.yml", target=target))
        self._url = f"http://127.0.0.1:{free_port()}"
        address = self._url.removeprefix("http://")
        options = (f"--config.file={self.config}", f"--storage.tsdb.path={folder / 'data'}")
        self._log = (folder / "log").open("wb")
        self.program = subprocess.Popen(
            ["prometheus", *options, f"--web.listen-address={address}"], stdout=self._log, stderr=self._log
        )

    def get(self, path: str, **query: str) -> Any:
        """Return the data of an answer of its API; None if it does not answer."""
        try:
            with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(query)}") as reply:
                answer = json.load(reply)
        except OSError:
            return None
        return answer["data"] if answer["status"] == "success" else None

    def values(self, query: str) -> list[Any]:
        """Return the series that a query of the dashboard finds."""
        filled = query.replace("$instance", ".+").replace("$__rate_interval", "10s")
        data = self.get("query", query=filled)
        return data["result"] if data else []

    def end(self) -> None:
        self.program.terminate()
        self.program.wait()
        self._log.close()


async def make_load(daemon: Daemon, peer: str) -> None:
    """Make calls, sessions and errors until cancelled."""
    async with Client(daemon.home.path) as client:
        while True:
            await client.call("alice", peer, "Echo", request={"message": "x"})
            with suppress(ApplicationError):
                await client.call("alice", peer, "Echo", "short", request={"message": "x" * 100})
            async with await client.connect("alice", peer, "Trial", initial={"do": "send", "size": 100_000}) as session:
                async for _ in session:
                    pass
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    env = install_protocols(folder / "packages")
    one, two = (Daemon(folder / name, folder / "hosts", **env) for name in ("one", "two"))
    address = f"127.0.0.1:{free_port()}"
    program = None
    try:
        one.launch("--metrics", address)
        two.start()
        assert one.wait_ready(), one.report()
        add_identity(one, "alice")
        bob = add_identity(two, "bob")
        program = Prometheus(folder, address)

        async def under_load() -> None:
            load = asyncio.create_task(make_load(one, bob))
            try:
                await asyncio.to_thread(eventually, lambda: all(map(running.values, QUERIES)), "every query has data")
            except AssertionError:
                without = [each for each in QUERIES if not running.values(each)]
                raise AssertionError(f"no data: {without}") from None
            finally:
                load.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await load

        running = program
        asyncio.run(under_load())
        yield program
    finally:
        if program is not None:
            program.end()
        one.clean_up()
        two.clean_up()


def test_every_query_of_the_dashboard_has_data(prometheus: Prometheus) -> None:
    """The fixture has waited for that, under load. What counts is above zero."""
    assert len(QUERIES) > 20
    calls = next(each for each in QUERIES if "calls_total" in each and "direction" in each)
    assert any(float(series["value"][1]) > 0 for series in prometheus.values(calls))


def test_every_alert_rule_is_evaluated_and_none_fires(prometheus: Prometheus) -> None:
    def evaluated() -> list[dict[str, Any]]:
        groups = prometheus.get("rules")["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        return rules if all(rule["health"] != "unknown" for rule in rules) else []

    rules = eventually(evaluated, "every rule was evaluated")
    assert len(rules) > 10
    assert [(rule["name"], rule["lastError"]) for rule in rules if rule["health"] != "ok"] == []
    assert [rule["name"] for rule in rules if rule["state"] == "firing"] == []


def test_promtool_accepts_rules_and_config(prometheus: Prometheus) -> None:
    done = subprocess.run(["promtool", "check", "config", str(prometheus.config)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


SILENT: Final = """
rule_files: ["{rules}"]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - {{series: 'up{{job="fastn-p2p", instance="here"}}', values: '1x80'}}
      - {{series: 'up{{job="fastn-p2p", instance="lost"}}', values: '1x10 stale'}}
    alert_rule_test:
      - {{alertname: FastnP2pSilent, eval_time: 10m, exp_alerts: []}}
      - alertname: FastnP2pSilent
        eval_time: 20m
        exp_alerts:
          - exp_labels: {{severity: critical, job: fastn-p2p, instance: lost}}
            exp_annotations:
              summary: "No figures of the daemon at lost arrive any more"
              remedy: "its machine, and the Prometheus agent there; an hour after the daemon was removed it ends"
      - {{alertname: FastnP2pSilent, eval_time: 75m, exp_alerts: []}}
"""


def test_a_daemon_whose_agent_sends_nothing_more_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "silent.yml").write_text(SILENT.format(rules=FOLDER / "alerts.yml"))
    done = subprocess.run(["promtool", "test", "rules", "silent.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
