"""Commands of pages that need no machine of their own, run as they stand there with names that exist."""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import pytest

from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_client.errors import Denied
from fastn_p2p_client.http import SyncPeerTransport
from tests.support.daemons import Daemon, eventually
from tests.support.processes import child
from tests.support.run_pages import ROOT, TEXTS
from tests.support.two_daemons import TwoDaemons, add_binding

PAGES = {
    page: (ROOT / page).read_text()
    for page in map(str, sorted(path.relative_to(ROOT) for path in ROOT.glob("docs/*.md")))
}
BLOCKS = {
    name: text
    for page, content in PAGES.items()
    if page not in TEXTS and page not in ("docs/streams.md", "docs/workers.md", "docs/postgres.md")
    for name, text in re.findall(
        r"^<!-- (?:run|stays): ([^\n]*) -->\n```(?:sh|python)\n(.*?)^```$", content, re.MULTILINE | re.DOTALL
    )
}
"""Blocks of the pages that no other test runs."""


def is_python(name: str) -> bool:
    return "import " in BLOCKS[name]


def run(env: dict[str, str], name: str, *, stdin: str = "", code: int = ExitCode.OK, **variables: str) -> str:
    """Run a block; its standard output."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    shell = ["bash", "-euo", "pipefail", "-c"]
    done = subprocess.run(
        [*([sys.executable, "-c"] if is_python(name) else shell), BLOCKS[name]],
        env=env | {"PATH": path} | variables, input=stdin, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@contextmanager
def stays(env: dict[str, str], name: str) -> Iterator[subprocess.Popen[str]]:
    """A block that runs until it is ended: one command, or a program."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [sys.executable, "-c", BLOCKS[name]] if is_python(name) else ["bash", "-c", f"exec {BLOCKS[name]}"]
    with child(subprocess.Popen(command, env=env | {"PATH": path}, stdout=subprocess.PIPE, text=True)) as process:
        try:
            yield process
        finally:
            process.terminate()
        assert process.wait(60) == ExitCode.OK


@pytest.fixture(scope="module")
def acquaintances(daemons: TwoDaemons) -> TwoDaemons:
    """alice has Chat and FileTransfer, and knows bob, carol and dora. erin, a stranger, was refused."""
    with daemons.one.client() as one, daemons.two.client() as two:
        one.peers.add(daemons.bob, "bob")
        for name in ("carol", "dora"):
            one.peers.add(daemons.two.identity(name), name)
        daemons.two.identity("erin")
        with pytest.raises(Denied):
            two.call("erin", daemons.alice, "Echo", "private", {"message": "hi"})
    add_binding(daemons.one, "alice", "Chat")
    add_binding(daemons.one, "alice", "FileTransfer", root="/usr/share")
    return daemons


def id52_of(daemon: Daemon, name: str) -> str:
    with daemon.client() as client:
        return client.identities.get(name).id52


def test_the_web(daemons: TwoDaemons, tmp_path: Path) -> None:
    """alice serves an application, and reads a report of a page that bob exposes."""
    one, two = daemons.one, daemons.two
    assert one.cli("peer", "add", daemons.bob, "--name", "bob").returncode == ExitCode.OK
    with (
        stays(one.env, "serve asgi"),
        httpx.Client(mounts={"p2p://": SyncPeerTransport("bob", home=two.home)}) as client,
    ):

        def hello() -> str:
            with suppress(httpx.ConnectError):
                return client.get(f"p2p://{daemons.alice}/web/").text
            return ""

        assert "hello " in eventually(hello, "the application is on the air")

    (tmp_path / "report.html").write_text("All is well.")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            assert two.cli("expose", str(server.server_port), "--allow", "everyone").returncode == ExitCode.OK
            assert run(one.env, "httpx") == "All is well.\n"
        finally:
            server.shutdown()
    web = ("--protocol", "Web", "--instance", "web")
    assert two.cli("remove-protocol", "bob", *web, "--yes").returncode == ExitCode.OK

    run(two.env, "expose")
    assert two.cli("protocol", "set", "bob", *web, "--allow", "everyone").returncode == ExitCode.OK
    with stays(one.env, "open") as process:
        assert process.stdout is not None
        assert re.fullmatch(r"http://127\.0\.0\.1:2\d{4}/\n", process.stdout.readline())
    assert one.cli("peer", "remove", "bob").returncode == ExitCode.OK


def test_peers(acquaintances: TwoDaemons) -> None:
    one, two, bob = acquaintances.one.env, acquaintances.two.env, acquaintances.bob
    for name in ("URI", "call by ID52"):
        assert run(one, name, BOB=bob) == '{"echoed":"Echo: hi"}\n'
    accessible = run(one, "access")
    assert "Echo" in accessible
    assert "peers" in accessible
    run(one, "groups")
    with acquaintances.one.client() as client:
        (friends,) = client.groups.list()
        assert sorted(friends.members) == ["bob", "dora"]
    erin = id52_of(acquaintances.two, "erin")
    assert erin in run(one, "pending")
    run(one, "accept", ID52=erin[:6])
    run(one, "block")
    assert "robert" not in run(one, "names").replace("robert\t", "", 1)

    invitation = run(one, "invite").strip().splitlines()[-1]
    with acquaintances.two.client() as client:
        for other in ("carol", "dora", "erin"):
            client.identities.set_online(other, False)
    assert run(two, "redeem", stdin=invitation) == f"{acquaintances.alice}\n"
    with acquaintances.one.client() as client:
        (known,) = client.invitations.list()
    assert known.id in run(one, "revoke an invitation", ID=known.id)


def test_the_daemon(acquaintances: TwoDaemons) -> None:
    env = acquaintances.one.env
    run(env, "unlisted")
    failed = json.loads(run(env, "error as JSON", code=ExitCode.PEER))["error"]
    assert (failed["code"], failed["fields"]) == ("peer-unknown", {"peer": "nobody"})
    assert "network" in run(env, "logs")
    assert "key-created" in run(env, "audit")
    run(env, "sleeping")


def test_settings(tmp_path: Path) -> None:
    env = {**os.environ, "FASTN_HOME": str(tmp_path / "home")}
    assert str(tmp_path / "home/config.toml") in run(env, "config")
    run(env, "metrics address")
    assert "127.0.0.1:9464" in (tmp_path / "home/config.toml").read_text()


def test_every_block_of_these_pages_is_run_or_says_why_not() -> None:
    mine = set(re.findall(r'(?:run|stays)\([\w.]+, "([^"]+)"', Path(__file__).read_text())) | {"URI", "call by ID52"}
    assert set(BLOCKS) == mine
