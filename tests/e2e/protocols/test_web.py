"""A web service of one daemon, exposed and opened by the commands that a user types."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from fastn_p2p.console.exit_codes import ExitCode
from fastn_p2p_client.http import AsyncPeerTransport, SyncPeerTransport
from tests.support.daemons import CLI, Daemon, eventually
from tests.support.two_daemons import TwoDaemons, start_two_daemons, until_awaited

ROOT = Path(__file__).resolve().parents[3]


class Mirror(http.server.BaseHTTPRequestHandler):
    """Answers with the request's headers; a POST with the length of its body."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self._answer(json.dumps(dict(self.headers)).encode())

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        self._answer(self.headers["Content-Length"].encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Write no log."""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Port of a service of this machine."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server.server_port
        server.shutdown()
        serving.join(60)


@pytest.fixture(scope="module")
def daemons() -> Iterator[TwoDaemons]:
    with start_two_daemons(echo=False) as daemons:
        run(daemons.one, "peer", "add", daemons.bob, "--name", "bob")
        yield daemons


def run(daemon: Daemon, *arguments: str) -> subprocess.CompletedProcess[str]:
    done = daemon.cli(*arguments)
    assert done.returncode == 0, done.stderr
    return done


@contextmanager
def opened(daemon: Daemon, *arguments: str) -> Iterator[str]:
    """The URL of a running ``fastn-p2p open``, which ends in order."""
    process = subprocess.Popen([*CLI, "open", *arguments], env=daemon.env, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert url
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def get(url: str, data: bytes | None = None) -> tuple[int, str]:
    """Return status and body."""
    try:
        with urllib.request.urlopen(url, data, timeout=100) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_from_expose_to_remove(daemons: TwoDaemons, port: int) -> None:
    exposed = run(daemons.two, "expose", f"http://127.0.0.1:{port}", "--allow", "everyone")
    assert "fastn-p2p remove-protocol bob --protocol Web --instance web" in exposed.stderr
    assert "nothing answers" not in exposed.stderr
    again = daemons.two.cli("expose", "9")
    assert (again.returncode, again.stdout) == (ExitCode.EXISTS, "")
    assert again.stderr == (
        "fastn-p2p: bob exposes a service as web already. Choose another --name, or end that first: "
        "fastn-p2p remove-protocol bob --protocol Web --instance web\n"
    )
    with opened(daemons.one, "bob") as url:
        status, body = get(url)
        headers = json.loads(body)
        assert (status, headers["Fastn-Peer"], headers.get("Fastn-Peer-Name")) == (200, daemons.alice, None)
        assert re.fullmatch("[0-9a-f]{16}/[0-9a-f]+/1", headers["Fastn-Request-Id"])

        run(daemons.two, "peer", "add", daemons.alice, "--name", "alice")
        assert json.loads(get(url)[1])["Fastn-Peer-Name"] == "alice"

        size = 30_000_000
        assert get(url, bytes(size)) == (200, str(size))

        taken = daemons.one.cli("open", "bob")
        assert taken.returncode == ExitCode.EXISTS
        assert "--port" in taken.stderr

        run(daemons.two, "identity-offline", "bob")
        status, body = get(url)
        assert status == 502
        assert "not online" in body
        run(daemons.two, "identity-online", "bob")
        assert eventually(lambda: get(url)[0] == 200, "it works again")
    with opened(daemons.one, daemons.bob) as same:
        assert same == url
        run(daemons.two, "remove-protocol", "bob", "--protocol", "Web", "--instance", "web", "--yes")
        status, body = get(same)
        assert (status, "bob exposes no web service to you" in body) == (404, True)


def test_a_service_that_is_not_there_yet_is_exposed_with_a_warning(daemons: TwoDaemons, tmp_path: Path) -> None:
    warning = f"fastn-p2p: nothing answers at unix:{tmp_path}/none.sock yet (No such file or directory)."
    exposed = run(daemons.two, "expose", f"{tmp_path}/none.sock", "--name", "later")
    assert warning in exposed.stderr
    exposed = run(daemons.two, "expose", f"{tmp_path}/none.sock", "--name", "later2", "--json")
    assert exposed.stderr.startswith(warning)
    assert json.loads(exposed.stdout)["instance"] == "later2"


def test_who_is_not_allowed_sees_a_page_that_says_so(daemons: TwoDaemons, port: int) -> None:
    run(daemons.two, "peer", "add", daemons.alice, "--name", "alice")
    run(daemons.two, "expose", str(port), "--name", "mine", "--allow", daemons.bob)
    refused = daemons.one.cli("open", "bob", "mine")
    assert refused.returncode == ExitCode.DENIED, refused.stderr
    assert refused.stderr.startswith("fastn-p2p: bob does not let you use Web (mine). ")
    assert refused.stderr.endswith(f": fastn-p2p peer accept {daemons.alice}\n")
    run(daemons.two, "protocol", "set", "bob", "--protocol", "Web", "--instance", "mine", "--allow", "peers")
    with opened(daemons.one, "bob", "mine") as url:
        assert get(url)[0] == 200
        run(daemons.two, "protocol", "set", "bob", "--protocol", "Web", "--instance", "mine", "--allow", daemons.bob)
        eventually(lambda: get(url)[0] == 403, "it is refused")
        assert "bob does not let you use Web (mine)" in get(url)[1]


def test_a_service_that_is_not_exposed_names_the_command_that_exposes_it(daemons: TwoDaemons) -> None:
    command = "fastn-p2p expose PORT --name none"
    text = f"bob exposes no web service 'none' to you. Its owner exposes one of this name: {command}"
    run(daemons.two, "expose", "9", "--name", "other")
    missing = daemons.one.cli("open", "bob", "none")
    assert (missing.returncode, missing.stderr) == (ExitCode.NOT_FOUND, f"fastn-p2p: {text}\n")
    error = json.loads(daemons.one.cli("open", "bob", "none", "--json").stdout)["error"]
    assert (error["code"], error["message"], bool(error["request_id"])) == ("instance-not-found", text, True)
    explained = daemons.one.cli("explain", "bob", "Web", "none")
    assert f"{command} --as NAME" in explained.stdout + explained.stderr


MALFORMED = {
    "no HTTP": b"hello\r\n",
    "a line that is no header": b"GET / HTTP/1.1\r\nHost: HOST\r\nhello\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    "a size with bare LF": b"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n3\n",
    "a late bare LF": b"POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\n",
}


def test_what_is_malformed_is_answered_at_once_and_nothing_behind_it_is_a_request(daemons: TwoDaemons) -> None:
    """The service answers no request, so that each answer is that of ``open``. The client ends nothing."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as service, ThreadPoolExecutor() as threads:

        def record() -> None:
            for _ in range(2):  # the two whose head is in order
                connection, _ = service.accept()
                with connection, suppress(ConnectionResetError):
                    while data := connection.recv(1 << 16):
                        seen.append(data)

        recorded = threads.submit(record)
        run(daemons.two, "expose", str(service.getsockname()[1]), "--name", "strict", "--allow", "everyone")
        with opened(daemons.one, "bob", "strict") as url:
            host = url.split("/")[2]
            for name, request in MALFORMED.items():
                with socket.create_connection(("127.0.0.1", int(host.partition(":")[2])), 60) as client:
                    client.sendall(
                        request.replace(b"HOST", host.encode()) + b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
                    )
                    answer = b"".join(iter(lambda: client.recv(1 << 16), b""))
                assert answer.startswith(b"HTTP/1.1 400 "), (name, answer)
        recorded.result(60)
    assert b"smuggled" not in b"".join(seen)


# ── browsers ─────────────────────────────────────────────────────────────────────────────────────

CHROMIUM = shutil.which("chromium")
OWN_PAGE = """<!doctype html><script type=module>
const posted = await (await fetch("/echo", {method: "POST", body: "posted"})).text();
const events = await new Promise(done => {
    const all = [], source = new EventSource("/events");
    source.onmessage = event => { all.push(event.data); if (all.length == 3) { source.close(); done(all); } };
});
const socket = new WebSocket(`ws://${location.host}/socket`);
const talked = await new Promise(done => {
    socket.onopen = () => socket.send("talked");
    socket.onmessage = event => done(event.data);
});
await fetch("/result", {method: "POST", body: JSON.stringify({posted, events, talked})});
</script>"""
OTHER_PAGE = """<!doctype html><script type=module>
const there = "TARGET", tried = {};
const fetched = options => fetch(there + "harm", options).then(answer => answer.type, error => "refused");
tried.post = await fetched({method: "POST", mode: "no-cors", body: "harm"});
tried.read = await fetched({});
tried.image = await new Promise(done => {
    const image = new Image(); image.onload = () => done("shown"); image.onerror = () => done("refused");
    image.src = there + "harm";
});
tried.socket = await new Promise(done => {
    const socket = new WebSocket(there.replace("http", "ws") + "socket");
    socket.onopen = () => done("open"); socket.onerror = () => done("refused");
});
await fetch("/result", {method: "POST", body: JSON.stringify(tried)});
</script>"""


class Site:
    """A site with a page, whose script posts its result."""

    def __init__(self, page: str) -> None:
        self.page = page
        self.result: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.seen: list[tuple[str, str, str | None]] = []
        """Method, path and caller of each request."""
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Site]:
        runner = web.ServerRunner(web.Server(self._answer), shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.seen.append((request.method, request.path, request.headers.get("Fastn-Peer-Name")))
        if request.path == "/result":
            self.result.set_result(await request.read())
        elif request.path == "/echo":
            return web.Response(body=await request.read())
        elif request.path == "/events":
            events = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await events.prepare(request)
            for number in range(3):
                await events.write(b"data: %d\n\n" % number)
            await asyncio.Event().wait()  # the page ends it
        elif request.path == "/socket":
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            await socket.send_str(await socket.receive_str())
            return socket
        return web.Response(text=self.page, content_type="text/html")


@asynccontextmanager
async def browser(url: str, profile: Path) -> AsyncIterator[None]:
    """A headless browser that has opened a page."""
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
        "--remote-debugging-port=0", f"--user-data-dir={profile}", url,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
async def test_a_browser_uses_the_service_and_pages_of_other_sites_do_not(daemons: TwoDaemons, tmp_path: Path) -> None:
    run(daemons.two, "peer", "add", daemons.alice, "--name", "alice")
    async with Site(OWN_PAGE).serving() as own, Site(OTHER_PAGE).serving() as other:
        await asyncio.to_thread(run, daemons.two, "expose", str(own.port), "--name", "site")
        with opened(daemons.one, "bob", "site") as url:
            named = url.replace("127.0.0.1", "site.bob.localhost")
            async with asyncio.timeout(90), browser(named, tmp_path / "own"):
                result = json.loads(await own.result)
            assert result == {"posted": "posted", "events": ["0", "1", "2"], "talked": "talked"}
            assert {caller for _, _, caller in own.seen} == {"alice"}

            own.seen.clear()
            other.page = OTHER_PAGE.replace("TARGET", named)
            async with asyncio.timeout(90), browser(f"http://evil.localhost:{other.port}/", tmp_path / "other"):
                result = json.loads(await other.result)
            assert result.pop("post") in ("opaque", "refused")  # a page cannot see that it was refused
            assert result == {"read": "refused", "image": "refused", "socket": "refused"}
            assert own.seen == []


# ── programs ─────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def guestbook(daemon: Daemon) -> Iterator[None]:
    """The example with FastAPI, which serves as bob, and ends in order."""
    process = subprocess.Popen([sys.executable, ROOT / "examples/fastapi_app.py", "bob"], env=daemon.env)
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


async def test_fastapi_on_the_air_and_httpx(daemons: TwoDaemons) -> None:
    run(daemons.two, "peer", "add", daemons.alice, "--name", "alice")
    with guestbook(daemons.two):
        transport = AsyncPeerTransport("alice", home=daemons.one.home)
        async with httpx.AsyncClient(mounts={"p2p://": transport}, timeout=60) as client:

            async def is_there() -> bool:
                try:
                    return (await client.get("p2p://bob/guestbook/")).status_code == 200
                except httpx.ConnectError:
                    return False

            assert await until_awaited(is_there, "the application is on the air")
            said = await client.post("p2p://bob/guestbook", json="hello", headers={"Fastn-Peer": "forged"})
            assert (said.status_code, said.json()) == (201, "alice: hello")
            assert (await client.get("p2p://bob/guestbook/me?x=1")).json() == [daemons.alice, "alice"]
            answers = await asyncio.gather(*(client.get("p2p://bob/guestbook/me") for _ in range(20)))
            assert {answer.status_code for answer in answers} == {200}
            async with client.stream("GET", "p2p://bob/guestbook/events") as stream:
                lines = [line async for line in stream.aiter_lines() if line]
            assert lines == ["data: The guestbook is open.", "data: alice: hello"]
            missing = await client.get("p2p://bob/guestbook/missing")
            assert (missing.status_code, missing.json()) == (404, {"detail": "Not Found"})
            with pytest.raises(httpx.ConnectError, match="exposes no web service 'nothing'"):
                await client.get("p2p://bob/nothing/")
            with pytest.raises(httpx.UnsupportedProtocol):
                await client.get("p2p://bob")

        def blocking() -> list[str]:
            with httpx.Client(mounts={"p2p://": SyncPeerTransport(home=daemons.one.home)}, timeout=60) as client:
                client.put("p2p://bob/guestbook/", content=bytes(3_000_000))
                answer: list[str] = client.get("p2p://bob/guestbook/").json()
                return answer

        assert await asyncio.to_thread(blocking) == ["The guestbook is open.", "alice: hello"]
        with opened(daemons.one, "bob", "guestbook") as url:
            assert json.loads(get(url)[1])[1] == "alice: hello"
