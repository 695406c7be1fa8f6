"""``netcheck``: each check finds what is right and what is wrong, with and without a daemon."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any

from fastn_p2p.console.exit_codes import ExitCode
from tests.support.daemons import CLI, Daemon, eventually
from tests.support.relay_clients import running_relay

NOBODY = "http://127.0.0.1:1"
"""Address without a listener."""


def environment(home: Path, **env: str) -> dict[str, str]:
    return {**os.environ, "FASTN_HOME": str(home), "FASTN_NETWORK": "internet", "FASTN_LAN": "false", **env}


async def netcheck(env: dict[str, str]) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Return the exit code, and the checks by name."""
    done = await asyncio.to_thread(
        subprocess.run, [*CLI, "netcheck", "--json"], env=env, capture_output=True, text=True, timeout=60
    )
    checks: dict[str, list[dict[str, Any]]] = {}
    for line in done.stdout.splitlines():
        check = json.loads(line)
        checks.setdefault(check["name"], []).append(check)
    assert checks, done.stderr
    return done.returncode, checks


async def test_all_is_well_without_a_daemon(tmp_path: Path) -> None:
    async with running_relay() as server:
        url = f"http://{server.addresses[0]}"
        env = environment(tmp_path, FASTN_RELAYS=url, FASTN_DIRECTORIES=f"{url}/pkarr")
        code, checks = await netcheck(env)
    assert code == ExitCode.OK, checks
    assert checks["daemon"][0]["state"] == "unknown"
    assert (checks["relay"][0]["state"], checks["relay"][0]["target"].rstrip("/")) == ("ok", url)
    assert checks["relay"][0]["ms"] > 0
    assert "publishes and returns" in checks["directory"][0]["text"]
    assert checks["clock"][0]["state"] == "ok"
    assert checks["LAN"][0]["state"] == "off"
    assert "because" in checks["NAT"][0]["text"]


async def test_with_a_daemon(tmp_path: Path) -> None:
    async with running_relay() as server:
        url = f"http://{server.addresses[0]}"
        env = environment(tmp_path / "home", FASTN_RELAYS=url, FASTN_DIRECTORIES=f"{url}/pkarr")
        daemon = Daemon(tmp_path / "home", tmp_path / "hosts", **env)
        await asyncio.to_thread(daemon.start)
        try:
            await asyncio.to_thread(eventually, lambda: daemon.status().home_relay, "the daemon has a relay")
            code, checks = await netcheck(daemon.env)
        finally:
            await asyncio.to_thread(daemon.clean_up)
    assert code == ExitCode.OK, checks
    assert checks["daemon"][0]["state"] == checks["home relay"][0]["state"] == checks["addresses"][0]["state"] == "ok"
    assert "identity-online" in checks["daemon"][0]["advice"]
    assert "UDP port" in checks["port"][0]["text"]


async def test_the_record_of_an_online_identity_is_read_back(tmp_path: Path) -> None:
    async with running_relay() as server:
        url = f"http://{server.addresses[0]}"
        env = environment(tmp_path / "home", FASTN_RELAYS=url, FASTN_DIRECTORIES=f"{url}/pkarr")
        daemon = Daemon(tmp_path / "home", tmp_path / "hosts", **env)
        await asyncio.to_thread(daemon.start)
        try:
            await asyncio.to_thread(daemon.identity, "alice")

            def published() -> bool:
                status = daemon.status()
                (identity,) = status.identities
                return bool(status.home_relay) and any(
                    each.age_ms is not None and not each.problem for each in identity.publications
                )

            await asyncio.to_thread(eventually, published, "the directory has the record")
            code, checks = await netcheck(daemon.env)
        finally:
            await asyncio.to_thread(daemon.clean_up)
    assert (code, checks["directory"][0]["state"]) == (ExitCode.OK, "ok"), checks
    assert "has the record of alice" in checks["directory"][0]["text"]


async def test_servers_that_do_not_answer(tmp_path: Path) -> None:
    env = environment(tmp_path, FASTN_RELAYS=NOBODY, FASTN_DIRECTORIES=f"{NOBODY}/pkarr")
    code, checks = await netcheck(env)
    assert code == 1
    for name in ("relay", "directory"):
        assert checks[name][0]["state"] == "problem"
        assert "refused" in checks[name][0]["text"]
        assert "firewall" in checks[name][0]["advice"]
    assert checks["clock"][0]["state"] == "unknown"


async def test_a_directory_where_there_is_none(tmp_path: Path) -> None:
    async with running_relay() as server:
        url = f"http://{server.addresses[0]}"
        env = environment(tmp_path, FASTN_RELAYS=f"{url}/elsewhere", FASTN_DIRECTORIES=f"{url}/elsewhere")
        code, checks = await netcheck(env)
    assert code == 1
    assert checks["relay"][0]["state"] == "ok", "a relay is reached whatever the path of its URL"
    assert "config set network.directories" in checks["directory"][0]["advice"]


def test_a_mode_that_uses_no_servers(tmp_path: Path) -> None:
    env = {**os.environ, "FASTN_HOME": str(tmp_path), "FASTN_NETWORK": "local"}
    done = subprocess.run([*CLI, "netcheck"], env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == ExitCode.OK
    assert "off      relay: network mode local uses no relays" in done.stdout
    assert "--network internet" in done.stdout
