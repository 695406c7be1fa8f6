"""The programs of deploy/scaled, with its secrets and the accounts of its nats.conf: load reaches workers."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.tables import ROOT
from tests.support.daemons import eventually
from tests.support.nats_servers import find_nats_server, nats_server
from tests.support.processes import child
from tests.support.two_daemons import TwoDaemons

FOLDER = ROOT / "deploy/scaled"


def test_the_load_reaches_the_workers(daemons: TwoDaemons, tmp_path: Path) -> None:
    find_nats_server()
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl on this machine")
    secrets = tmp_path / "secrets"
    subprocess.run(["sh", FOLDER / "make_secrets", secrets], check=True)
    server = tmp_path / "nats"
    server.mkdir()
    shutil.copy(secrets / "users.conf", server)
    accounts = re.sub("(?m)^(listen|write_deadline):.*", "", (FOLDER / "nats.conf").read_text())
    # The accounts are those of alice, so she serves here, and bob calls.
    with nats_server(server, accounts) as nats, daemons.one.client() as one:
        config = {"url": nats.url, "credentials": str(secrets / "bridge.toml")}
        one.protocols.add("alice", "Work", config=config, allow=["everyone"], workers=True)
        worker: list[str | Path] = [
            sys.executable,
            FOLDER / "worker.py",
            "alice",
            nats.url,
            "--credentials",
            secrets / "worker.toml",
        ]
        with child(subprocess.Popen(worker)) as first, child(subprocess.Popen(worker)) as second:
            eventually(lambda: is_loaded(daemons), "the load reaches a worker")
            for each in (first, second):
                each.terminate()
                assert each.wait(60) == 0
        one.protocols.remove("alice", "Work")


def test_containers_outlive_each_other_in_the_compose_file() -> None:
    """An agent keeps its network when its daemon is restarted, and ``up --wait`` has a check to wait for."""
    text = (FOLDER / "compose.yaml").read_text()
    owners = re.findall(r"network_mode: service:(\S+)", text)
    assert sorted(owners) == sorted(f"{each}-network" for each in ("owner", "replica", "caller") * 2)
    assert "entrypoint: [sleep, infinity]" in text
    assert "disable: true" not in text


def test_no_home_in_kubernetes_lies_in_a_folder_of_its_group() -> None:
    """The daemon refuses such a home, and Kubernetes opens the root of each volume to the group ``fsGroup``."""
    text = (FOLDER / "kubernetes/daemons.yaml").read_text()
    assert "install -d -m 700 /volume/home" in text
    assert "{name: home, mountPath: /volume}" in text
    assert "{name: home, mountPath: /var/lib/fastn, subPath: home}" in text
    assert "FASTN_HOME" not in text


def is_loaded(daemons: TwoDaemons) -> bool:
    """Make calls for two seconds. They wait as long as no worker is ready."""
    load: list[str | Path] = [
        sys.executable,
        FOLDER / "load.py",
        "bob",
        daemons.alice,
        "--interval",
        "1",
        "--reports",
        "2",
    ]
    done = subprocess.run(load, env=daemons.two.env, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    reports = re.findall(r"^([\d,]+) calls/s, errors: (.+)$", done.stdout, re.MULTILINE)
    assert [errors for _, errors in reports] == ["none", "none"]
    return any(rate != "0" for rate, _ in reports)
