"""The commands of docs/workers.md, as a reader follows them, with carol for bob, who has the protocol already."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.daemons import Daemon, eventually
from tests.support.nats_servers import NatsProcess
from tests.support.processes import child
from tests.support.two_daemons import TwoDaemons

PAGE = (Path(__file__).parents[3] / "docs" / "workers.md").read_text()
URL = "nats://nats.example.org:4222"


def block(name: str, url: str) -> str:
    (found,) = re.findall(rf"^<!-- run: {re.escape(name)} -->\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found).replace(URL, url).replace("bob", "carol")


def run(daemon: Daemon, command: str) -> str:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", command], env=daemon.env | {"PATH": path}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def work(text: str, directory: Path) -> Iterator[None]:
    (directory / "work.py").write_text(text)
    with child(subprocess.Popen([sys.executable, str(directory / "work.py")])) as process:
        yield
        process.terminate()
        assert process.wait(60) == 0


def test_the_page(daemons: TwoDaemons, nats: NatsProcess, tmp_path: Path) -> None:
    carol = daemons.two.identity("carol")
    with daemons.one.client() as one, daemons.two.client() as two:
        one.peers.add(carol, "carol")
        two.peers.add(daemons.alice, "alice")
    run(daemons.two, block("workers, bob", nats.url))
    with work(block("worker program", nats.url), tmp_path):
        call = block("workers, alice", nats.url)

        def answer() -> str:
            done = daemons.one.cli(*call.split()[1:])
            return done.stdout

        assert eventually(answer, "the worker answers") == "42\n"
        assert daemons.two.cli("identity", "set", "carol", "--idle", "1s").returncode == 0
        eventually(lambda: "asleep" in daemons.two.shown_status(), "the bridge sleeps with its identity")
        assert daemons.one.cli(*call.split()[1:]).stdout == "42\n"
