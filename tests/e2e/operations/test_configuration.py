"""Settings of a daemon: their precedence, what it says of invalid ones, and changes while it runs."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.conftest import MakeDaemon
from tests.support.daemons import CLI, Daemon, eventually
from tests.support.processes import child

NO_RELAY = "http://127.0.0.1:1"
"""Address without a listener. The tests use mode ``internet`` with servers on loopback only."""
QUIET = ("--directory", "none", "--no-lan")


class RelaySpy(ThreadingHTTPServer):
    """An HTTP server that notes which paths are asked for: ``/ping`` and ``/relay`` by an endpoint that uses it."""

    daemon_threads = True

    def __init__(self) -> None:
        self.asked: set[str] = set()
        spy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                spy.asked.add(self.path)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def spy() -> Iterator[RelaySpy]:
    with RelaySpy() as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        yield server
        server.shutdown()
        serving.join()


@pytest.fixture(scope="module")
def relay() -> Iterator[str]:
    """URL of a relay."""
    command = [*CLI, "relay", "--listen", "127.0.0.1:0", "--qad-port", "0"]
    with child(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[1]
        process.terminate()


def started(daemon: Daemon, *arguments: str) -> Daemon:
    daemon.launch(*arguments)
    assert daemon.wait_ready(), daemon.report()
    return daemon


def network(daemon: Daemon) -> tuple[str, list[str], list[str], bool]:
    status = daemon.status()
    return status.network_mode, status.relays, status.directories, status.lan


def test_command_line_comes_before_environment_before_file(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("one", FASTN_NETWORK="internet", FASTN_RELAYS=f"{NO_RELAY} http://127.0.0.1:2")
    for change in (("network.relays", "none"), ("network.directories", "http://127.0.0.1:3/d"), ("network.lan", "off")):
        assert daemon.cli("config", "set", *change).returncode == 0
    started(daemon)
    relays = [NO_RELAY, "http://127.0.0.1:2"]
    assert network(daemon) == ("internet", relays, ["http://127.0.0.1:3/d"], False)
    daemon.stop()
    started(daemon, "--relay", "http://127.0.0.1:4", "--directory", "none")
    assert network(daemon) == ("internet", ["http://127.0.0.1:4"], [], False)
    daemon.stop()
    started(daemon, "--network", "local")
    assert network(daemon) == ("local", [], ["http://127.0.0.1:3/d"], False)
    assert any("network.relays is not used in network mode local" in line for line in daemon.errors)


def test_relays_change_while_the_daemon_runs(make_daemon: MakeDaemon, spy: RelaySpy) -> None:
    daemon = make_daemon("one", FASTN_NETWORK="internet")
    assert daemon.cli("config", "set", "network.relays", "none").returncode == 0
    started(daemon, *QUIET)
    assert network(daemon) == ("internet", [], [], False)
    pid = daemon.pid("network")

    done = daemon.cli("config", "set", "network.relays", spy.url)
    assert (done.returncode, done.stderr) == (0, "Saved network.relays. The running daemon uses it now.\n")
    assert network(daemon) == ("internet", [spy.url], [], False)
    eventually(lambda: "/relay" in spy.asked, "the endpoint connects to the new relay")
    assert daemon.status().home_relay == ""  # the server is no relay
    assert daemon.pid("network") == pid

    assert daemon.cli("config", "set", "network.directories", "http://127.0.0.1:3/d").returncode == 0
    assert daemon.status().directories == []  # an option comes first
    daemon.kill_actor("network")
    daemon.wait_actor("network", pid)
    assert network(daemon) == ("internet", [spy.url], [], False)

    assert daemon.cli("config", "set", "network.relays", "none").returncode == 0
    assert daemon.status().relays == []


def test_says_that_an_option_of_the_running_daemon_comes_first(make_daemon: MakeDaemon) -> None:
    daemon = started(make_daemon("one", FASTN_NETWORK="internet"), *QUIET, "--relay", NO_RELAY)
    done = daemon.cli("config", "set", "network.relays", "http://127.0.0.1:2")
    assert done.returncode == 0
    assert "--relay or FASTN_RELAYS, which comes first" in done.stderr
    assert daemon.status().relays == [NO_RELAY]
    other = daemon.cli("config", "set", "limits.memory", "100")
    assert other.stderr == "Saved limits.memory. Restart the daemon to use it.\n"


def test_an_invalid_file_is_refused_at_the_start_and_ignored_later(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("one", FASTN_NETWORK="internet", FASTN_RELAYS=NO_RELAY, FASTN_DIRECTORIES="none")
    file = daemon.home.config_file
    assert daemon.cli("config", "set", "network.lan", "off").returncode == 0
    valid = file.read_text()
    file.write_text('[network]\nlan = "off"\n')
    refused = daemon.cli("daemon")
    assert refused.returncode == 2
    assert f'{file}, line 2: network.lan = "off" is not valid. Allowed: true or false' in refused.stderr

    file.write_text(valid)
    started(daemon)
    file.write_text("[netwrk]\n")
    pid = daemon.kill_actor("network")
    daemon.wait_actor("network", pid)
    status = daemon.status()
    assert status.relays == [NO_RELAY]
    assert any("unknown section 'netwrk'" in warning for warning in status.warnings)
    refused = daemon.cli("config", "set", "network.relays", "none")
    assert refused.returncode == 2
    assert "Did you mean 'network'?" in refused.stderr
    assert file.read_text() == "[netwrk]\n"


def test_config_without_a_daemon(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("one", FASTN_NETWORK="lan")
    assert daemon.cli("config", "path").stdout == f"{daemon.home.config_file}\n"
    saved = daemon.cli("config", "set", "network.relays", "https://a.example", "http://b.example")
    assert saved.returncode == 0
    assert "uses it from its next start" in saved.stderr
    assert "not used in network mode lan" in saved.stderr
    assert daemon.cli("config", "get", "network.relays").stdout == "https://a.example\nhttp://b.example\n"
    assert json.loads(daemon.cli("config", "get", "network.lan", "--json").stdout) is True
    shown = json.loads(daemon.cli("config", "show", "--json").stdout)
    assert shown["network.mode"] == {"value": "lan", "source": "environment"}
    assert shown["network.relays"] == {"value": ["https://a.example", "http://b.example"], "source": "file"}
    assert shown["limits.memory"] == {"value": 2048, "source": "default"}
    assert "network.mode\tlan\tFASTN_NETWORK\n" in daemon.cli("config", "show").stdout

    assert daemon.cli("config", "set", "network.relays", "default").returncode == 0
    assert json.loads(daemon.cli("config", "show", "--json").stdout)["network.relays"]["source"] == "default"
    unknown = daemon.cli("config", "get", "relays")
    assert unknown.returncode == 2
    assert "Did you mean 'network.relays'?" in unknown.stderr


def test_warns_of_http_outside_private_networks(make_daemon: MakeDaemon) -> None:
    daemon = make_daemon("one", FASTN_NETWORK="internet")
    done = daemon.cli("config", "set", "network.relays", "http://relay.example", "http://10.0.0.1:3340")
    assert "http://relay.example is not encrypted" in done.stderr
    assert "10.0.0.1" not in done.stderr


@pytest.mark.parametrize("spelling", ["http://{}", "HTTP://{}/", "http://{}/some/path"])
def test_a_relay_is_used_however_its_url_is_spelled(make_daemon: MakeDaemon, relay: str, spelling: str) -> None:
    url = spelling.format(relay.split("/")[2])
    daemon = started(make_daemon("one", FASTN_NETWORK="internet"), *QUIET, "--relay", url)
    eventually(lambda: daemon.status().home_relay, "the daemon is connected to the relay")
    checked = daemon.cli("netcheck").stdout
    assert f"ok       relay {url}: answers" in checked, checked
    assert any("the path of the relay" in line for line in daemon.errors) == url.endswith("path")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://user:password@127.0.0.1:3340", "it has a user name"),
        ("127.0.0.1:3340", "it does not begin with https:// or http://"),
        ("http://127.0.0.1:99999", "it is not a URL"),
        ("http://[::1", "it is not a URL"),
        ("http://127.0.0.1/?key=1", "it has a ? or #"),
    ],
)
def test_what_is_no_url_of_a_server_is_refused(make_daemon: MakeDaemon, url: str, words: str) -> None:
    daemon = make_daemon("one", FASTN_NETWORK="internet")
    for arguments in (
        ("daemon", "--relay", url),
        ("daemon", "--directory", url),
        ("config", "set", "network.relays", url),
    ):
        done = daemon.cli(*arguments)
        assert (done.returncode, words in done.stderr) == (2, True), done.stderr


def test_the_status_names_the_relay_that_is_connected(make_daemon: MakeDaemon, relay: str) -> None:
    daemon = make_daemon("one", FASTN_NETWORK="internet")
    assert daemon.cli("config", "set", "network.relays", "none").returncode == 0
    started(daemon, *QUIET)
    assert daemon.cli("config", "set", "network.relays", relay).returncode == 0
    eventually(lambda: daemon.status().home_relay == relay, "the daemon is connected to the relay")
    assert f"{relay} (connected)" in daemon.shown_status()
    eventually(lambda: relay in daemon.status().addresses, "peers are told of it")
    assert daemon.cli("config", "set", "network.relays", "none").returncode == 0
    assert daemon.status().relays == []
    eventually(lambda: daemon.status().home_relay == "", "the daemon leaves the relay")
    eventually(lambda: relay not in daemon.status().addresses, "peers are not told of it")
