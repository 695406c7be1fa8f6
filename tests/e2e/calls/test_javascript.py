"""The client for JavaScript, written by what docs/protocol.md says: it calls, serves, and comes back like any program.

Tests that need Node.js are skipped where there is none, or where npm cannot install the two packages."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p_client import Client, sync
from fastn_p2p_client.errors import (
    CODES,
    ApplicationError,
    BadRequest,
    CommandNotFound,
    ConnectionLost,
    DeadlineExceeded,
    HandlerFailed,
    PayloadTooLarge,
    PeerUnreachable,
    ProtocolNotFound,
)
from fastn_p2p_client.retry import NOT_EXECUTED
from fastn_p2p_client.testing import ProtocolClient, check_errors, check_requests, check_streams
from tests.support.daemons import Daemon, eventually
from tests.support.replicas import new_replicas
from tests.support.serving_programs import bob_at, serving
from tests.support.two_daemons import TwoDaemons, binding_of, until, wait_idle

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "clients" / "javascript"
OLDEST_NODE = 20


def installed_packages() -> Path:
    """A ``node_modules`` of what the lock file names: installed once for each environment, and used again."""
    lock = (PACKAGE / "package-lock.json").read_bytes()
    place = Path(sys.prefix) / "javascript" / hashlib.sha256(lock).hexdigest()[:16]
    if not place.exists():
        place.parent.mkdir(exist_ok=True)
        shutil.rmtree(fresh := place.with_suffix(".fresh"), ignore_errors=True)
        fresh.mkdir()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(PACKAGE / name, fresh)
        npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=0", "--fetch-timeout=10000"]
        try:
            done = subprocess.run(npm, cwd=fresh, capture_output=True, text=True, timeout=100, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip("npm could not install the packages of clients/javascript within 100 s")
        if done.returncode:
            pytest.skip(f"npm could not install the packages of clients/javascript: {done.stderr[:200]}")
        fresh.rename(place)
    return place / "node_modules"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's examples, as after ``npm ci``. Ask for it before the daemons: it may skip the test."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("there is no Node.js with npm on this machine")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if int(version.lstrip("v").split(".")[0]) < OLDEST_NODE:
        pytest.skip(f"this is Node.js {version}; the client needs {OLDEST_NODE}")
    packages = installed_packages()
    directory = tmp_path_factory.mktemp("javascript") / "package"
    shutil.copytree(PACKAGE, directory, ignore=shutil.ignore_patterns("node_modules"))
    (directory / "node_modules").symlink_to(packages)
    return directory / "examples"


class Program:
    """A program in JavaScript that runs; what it prints is kept."""

    def __init__(self, script: Path, *arguments: str, daemon: Daemon) -> None:
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            ["node", str(script), *arguments], env=daemon.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._readers = [
            threading.Thread(target=self._read, args=(stream,)) for stream in (self.process.stdout, self.process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: Any) -> None:
        for line in stream:
            self.lines.append(line.rstrip("\n"))

    def says(self, text: str, times: int = 1) -> None:
        """Returns when a line has been printed that often."""
        eventually(
            lambda: self.lines.count(text) >= times or self.process.poll() is not None, f"{text!r}: {self.lines}"
        )
        assert self.lines.count(text) >= times, self.lines

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.process.terminate()
        return self.wait()

    def wait(self) -> int:
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()
            self.process.wait()
            for reader in self._readers:
                reader.join()
            for stream in (self.process.stdout, self.process.stderr):
                assert stream is not None
                stream.close()


@pytest.fixture(scope="module")
def timer(example: Path, daemons: TwoDaemons) -> Iterator[Program]:
    """bob's Timer, served by ``serve.mjs``."""
    program = Program(example / "serve.mjs", "bob", daemon=daemons.two)
    try:
        program.says("serving")
        yield program
    finally:
        program.stop()


@pytest.fixture
def client(daemons: TwoDaemons) -> Iterator[sync.Client]:
    with daemons.one.client() as client:
        yield client


def call(example: Path, daemon: Daemon, *arguments: str) -> Any:
    """Return the reply or the error that ``call.mjs`` prints."""
    done = subprocess.run(
        ["node", str(example / "call.mjs"), *arguments],
        env=daemon.env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == (1 if done.stderr else 0), done.stderr
    return json.loads(done.stderr or done.stdout)


def test_it_calls_a_protocol_of_another_daemon(example: Path, daemons: TwoDaemons) -> None:
    assert call(example, daemons.one, "alice", daemons.bob, "Echo", '{"message": "hi"}') == {"echoed": "Echo: hi"}


@pytest.mark.parametrize(
    ("protocol", "request_", "error"),
    [
        ("Echo", '{"message": ""}', {"error": "ApplicationError", "kind": "MessageEmpty", "data": {"length": 0}}),
        (
            "Nothing",
            "{}",
            {"error": "ProtocolNotFound", "code": "protocol-not-found", "fields": {"protocol": "Nothing"}},
        ),
        ("Echo", "{}", {"error": "BadRequest", "code": "bad-request", "fields": {"protocol": "Echo"}}),
    ],
)
def test_errors_are_classes_with_their_fields(
    example: Path, daemons: TwoDaemons, protocol: str, request_: str, error: dict[str, Any]
) -> None:
    told = call(example, daemons.one, "alice", daemons.bob, protocol, request_)
    for key, value in error.items():
        assert told[key] == (told[key] | value if isinstance(value, dict) else value)


def test_it_says_that_no_daemon_runs(example: Path, make_daemon: Any) -> None:
    daemon = make_daemon("nowhere")
    told = call(example, daemon, "alice", "bob", "Echo")
    assert (told["error"], told["fields"]) == ("DaemonNotRunning", {"home": str(daemon.home.path)})


def test_a_handler_is_called_from_another_daemon(timer: Program, daemons: TwoDaemons, client: sync.Client) -> None:
    assert client.call("alice", daemons.bob, "Timer", request={"seconds": 0.01}) == {"waited": 0.01}
    timer.says(f"waited 0.01 s for {daemons.alice}")
    with pytest.raises(ApplicationError) as refused:
        client.call("alice", daemons.bob, "Timer", request={"seconds": -1})
    assert (refused.value.kind, refused.value.payload) == ("Negative", {"seconds": -1})
    with pytest.raises(BadRequest, match="seconds must be a number"):
        client.call("alice", daemons.bob, "Timer", request={})
    with pytest.raises(CommandNotFound) as unknown:
        client.call("alice", daemons.bob, "Timer", request={}, command="settings.reset")
    assert unknown.value.fields() == {"peer": daemons.bob, "protocol": "Timer", "command": "settings.reset"}
    assert binding_of(daemons.two, "bob", "Timer").programs == 1


def test_a_handler_is_cancelled_at_the_caller_s_deadline(
    timer: Program, daemons: TwoDaemons, client: sync.Client
) -> None:
    def is_cancelled() -> bool:
        """It has not begun if the call was on its way until then."""
        with pytest.raises(DeadlineExceeded):
            client.call("alice", daemons.bob, "Timer", request={"seconds": 60}, timeout=0.3)
        wait_idle(daemons.two)
        return f"cancelled by {daemons.alice}" in timer.lines

    eventually(is_cancelled, "a handler is cancelled")


def test_it_serves_again_after_the_network_process_has_died(
    timer: Program, example: Path, daemons: TwoDaemons, client: sync.Client
) -> None:
    """And a call of its own that was in flight is lost, as an error of that class."""
    times = timer.lines.count("serving")
    caller = Program(example / "call.mjs", "bob", daemons.bob, "Timer", '{"seconds": 60}', daemon=daemons.two)
    try:
        eventually(lambda: binding_of(daemons.two, "bob", "Timer").in_flight, "it waits")
        pid = daemons.two.kill_actor("network")
    finally:
        assert caller.wait() == 1
    assert json.loads(caller.lines[0])["error"] == "ConnectionLost"
    timer.says("serving", times + 1)
    daemons.two.wait_actor("network", pid)
    assert until_answered(client, daemons, {"seconds": 0}) == {"waited": 0}


def test_it_serves_again_after_the_daemon_restarts(timer: Program, daemons: TwoDaemons, client: sync.Client) -> None:
    """The grant that it has holds no more, so it asks for another one."""
    times = timer.lines.count("serving")
    daemons.two.stop()
    daemons.two.start()
    timer.says("serving", times + 1)
    assert until_answered(client, daemons, {"seconds": 0}) == {"waited": 0}


def test_it_finishes_what_is_in_flight_before_it_ends(example: Path, daemons: TwoDaemons, client: sync.Client) -> None:
    program = Program(example / "serve.mjs", "alice", daemon=daemons.one)
    try:
        program.says("serving")
        answers: list[Any] = []
        caller = threading.Thread(
            target=lambda: answers.append(client.call("alice", daemons.alice, "Timer", request={"seconds": 1.0}))
        )
        caller.start()
        eventually(lambda: binding_of(daemons.one, "alice", "Timer").in_flight, "it waits")
        program.process.send_signal(signal.SIGTERM)
        caller.join(60)
        assert answers == [{"waited": 1.0}]
    finally:
        assert program.wait() == 0


def test_a_protocol_that_cannot_be_served_is_reported_at_once(example: Path, daemons: TwoDaemons) -> None:
    program = Program(example / "serve.mjs", "nobody", daemon=daemons.two)
    assert program.wait() == 1
    assert program.lines == ["IdentityNotFound: identity-not-found, identity: nobody"]


def test_a_session_between_two_of_it(example: Path, daemons: TwoDaemons) -> None:
    """More than the window, both ways at once, and unaltered."""
    program = Program(example / "shout.mjs", "bob", daemon=daemons.two)
    try:
        program.says("serving")
        said = b"hello world\n" * 200_000
        done = subprocess.run(
            ["node", str(example / "stream.mjs"), "alice", daemons.bob, "Shout"],
            env=daemons.one.env,
            input=said,
            capture_output=True,
            timeout=100,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == said.upper()
    finally:
        program.stop()


SPREAD = """
import { Client, serve } from "fastn-p2p-client";

const client = new Client();
const handlers = { request: () => Number(process.argv[2]) };
for (const [protocol, stateless] of [["Spread", true], ["Shop", false]]) {
  const onReady = () => console.log(protocol);
  serve(client, "bob", protocol, handlers, { allow: ["everyone"], stateless, onReady });
}
"""


def test_requests_to_a_program_that_keeps_nothing_are_spread_over_the_daemons(example: Path) -> None:
    (example / "spread.mjs").write_text(SPREAD)
    with new_replicas() as replicas, replicas.caller.client() as client:
        programs = [
            Program(example / "spread.mjs", str(number), daemon=daemon)
            for number, daemon in enumerate(replicas.daemons)
        ]
        try:
            for program in programs:
                program.says("Spread")
                program.says("Shop")
            seen: set[object] = set()

            def is_spread() -> bool:
                seen.add(client.call("alice", replicas.bob, "Spread", request="x", timeout=60))
                return seen == {0, 1}

            eventually(is_spread, "both daemons answer")
            assert len({client.call("alice", replicas.bob, "Shop", request="x", timeout=60) for _ in range(10)}) == 1
        finally:
            for program in programs:
                program.stop()


TROUBLE = """
import { ApplicationError, Client, serve } from "fastn-p2p-client";

await serve(new Client(), "bob", "Trouble", { request: (request) => {
  if (request === "raise") throw new TypeError("the details");
  if (request === "strange") return 1n << 70n;
  if (request === "refuse") throw new ApplicationError("Strange", "no", 1n << 70n);
  return new Uint8Array(request);
} }, { allow: ["everyone"], onReady: () => console.log("serving") });
"""


def test_a_handler_that_fails_is_told_as_any_other(example: Path, daemons: TwoDaemons, client: sync.Client) -> None:
    (example / "trouble.mjs").write_text(TROUBLE)
    program = Program(example / "trouble.mjs", daemon=daemons.two)
    try:
        program.says("serving")
        with pytest.raises(HandlerFailed) as failed:
            client.call("alice", daemons.bob, "Trouble", request="raise")
        assert failed.value.fields() == {"peer": daemons.bob, "protocol": "Trouble", "reason": "TypeError"}
        for strange in ("strange", "refuse"):
            with pytest.raises(HandlerFailed):
                client.call("alice", daemons.bob, "Trouble", request=strange)
        with pytest.raises(PayloadTooLarge):
            client.call("alice", daemons.bob, "Trouble", request=16 << 20)
        with pytest.raises(BadRequest, match="no sessions"):
            client.connect("alice", daemons.bob, "Trouble")
    finally:
        program.stop()


@pytest.fixture(scope="module")
def conformance(example: Path, daemons: TwoDaemons) -> Iterator[Program]:
    """bob's Conformance, served by ``conformance.mjs``."""
    program = Program(example / "conformance.mjs", "bob", daemon=daemons.two)
    try:
        program.says("serving")
        yield program
    finally:
        assert program.stop() == 0


@pytest.mark.parametrize("check", [check_requests, check_errors, check_streams])
@pytest.mark.parametrize("caller", ["alice", "bob"])
async def test_it_conforms(
    conformance: Program, daemons: TwoDaemons, caller: str, check: Callable[[ProtocolClient], Awaitable[None]]
) -> None:
    """alice calls from another daemon, bob from the same one."""
    async with Client(daemons.one.home if caller == "alice" else daemons.two.home) as client:
        await check(ProtocolClient(client, caller, daemons.bob, "Conformance"))  # does not raise


RETRY = """
import { Client } from "fastn-p2p-client";

const [peer, text] = process.argv.slice(2);
const client = new Client();
const call = (request, options) =>
  client.call("alice", peer, "Shop", request, { retry: true, ...options }).catch((error) => [error.code ?? error.kind]);
let early;
do early = await call("early", { timeout: 0.5 }); while (early[0] === "deadline-exceeded");  // the machine stood still
console.log(JSON.stringify(early));
console.log(JSON.stringify(await call(text, { timeout: 60 })));
console.log(JSON.stringify(await call("refuse", { timeout: 60 })));
client.close();
"""


async def test_a_call_with_retry_is_executed_once(example: Path, daemons: TwoDaemons) -> None:
    """Nobody serves it at first; then the network process of the caller's daemon dies while it is executed."""
    executed: list[str] = []
    go_on = asyncio.Event()

    async def handle(request: str) -> str:
        executed.append(request)
        if request == "refuse":
            raise ApplicationError("Refused", "no")
        await go_on.wait()
        return f"{request} done"

    (example / "retry.mjs").write_text(RETRY)
    program = Program(example / "retry.mjs", daemons.bob, "x", daemon=daemons.one)
    try:
        await asyncio.to_thread(program.says, '["protocol-not-found"]')
        async with serving(bob_at(daemons, handle)):
            await until(lambda: executed, "it is executed")
            pid = await asyncio.to_thread(daemons.one.kill_actor, "network")
            await asyncio.to_thread(daemons.one.wait_actor, "network", pid)
            go_on.set()
            await asyncio.to_thread(program.says, '["Refused"]')
    finally:
        assert program.wait() == 0
    assert program.lines == ['["protocol-not-found"]', '"x done"', '["Refused"]']
    assert executed == ["x", "refuse"]


TYPED = """
import { ApplicationError, Client, PeerOffline, serve, type Session } from "fastn-p2p-client";

const client = new Client();
const reply = await client.call<{ echoed: string }>("alice", "bob", "Echo", { message: "hi" }, { retry: true });
const length: number = reply.echoed.length;
const session: Session = await client.open("alice", "bob", "Shout");
for await (const chunk of session) await session.write(chunk.subarray(length));
await serve(client, "alice", "Timer", { request: (request, { signal }) => signal.aborted ? null : request });
await serve(client, "alice", "Work", { request: (request) => request }, { stateless: true });
try { client.close(); } catch (error) {
  if (error instanceof PeerOffline) console.log(error.fields.peer.length, error.retryable);
  if (error instanceof ApplicationError) console.log(error.kind.length, error.data);
}
// @ts-expect-error: sessions are not retried
await client.open("alice", "bob", "Shout", null, { retry: true });
// @ts-expect-error: it has no such field
new PeerOffline({ name: "bob" });
"""


def test_typescript_takes_its_types(example: Path) -> None:
    (example / "typed.mts").write_text(TYPED)
    tsc = [str(example.parent / "node_modules/.bin/tsc"), "--noEmit", "--strict", "--target", "es2022"]
    tsc += ["--module", "nodenext", "--lib", "es2023,dom", str(example / "typed.mts")]
    done = subprocess.run(tsc, cwd=example, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_package_has_what_it_needs_and_no_more(example: Path) -> None:
    pack = ["npm", "pack", "--dry-run", "--json", "--ignore-scripts"]
    done = subprocess.run(pack, cwd=PACKAGE, capture_output=True, text=True, timeout=100, check=True)
    (packed,) = json.loads(done.stdout)
    modules = {
        path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.mjs") if "node_modules" not in path.parts
    }
    assert {each["path"] for each in packed["files"]} == {*modules, "index.d.ts", "package.json", "README.md"}


def until_answered(client: sync.Client, daemons: TwoDaemons, request: object) -> object:
    """The reply to the first call that is answered after a restart."""

    def answer() -> object:
        try:
            return client.call("alice", daemons.bob, "Timer", request=request, timeout=60)
        except (ConnectionLost, PeerUnreachable, ProtocolNotFound):
            return None

    return eventually(answer, "a call is answered")


# ── without Node.js ──────────────────────────────────────────────────────────────────────────────


def test_it_knows_every_error_of_the_page() -> None:
    page = (ROOT / "docs" / "protocol.md").read_text()
    table = page.split("### Errors", 1)[1].split("### Exit codes", 1)[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| `(\w+)` \| (.*?) \| (yes|no) \|", table, re.MULTILINE)
    documented = [
        (name, code, fields.replace("`", "").replace("none", ""), retryable == "yes")
        for code, name, fields, retryable in rows
    ]
    source = (PACKAGE / "errors.mjs").read_text()
    defined = [
        (name, code, fields, bool(retryable))
        for name, code, fields, retryable in re.findall(
            r'^export const (\w+) = define\("([a-z-]+)", "(.*?)"(, RETRYABLE)?\);', source, re.MULTILINE
        )
    ]
    assert defined == documented
    assert documented


def test_it_retries_after_the_errors_after_which_the_python_library_does() -> None:
    source = (PACKAGE / "retry.mjs").read_text()
    passing, not_executed = (
        {*re.findall('"(.*?)"', re.findall(rf"{name} = new Set\(\[(.*?)\]\)", source, re.DOTALL)[0])}
        for name in ("PASSING", "NOT_EXECUTED")
    )
    final = {DeadlineExceeded, HandlerFailed}
    assert passing == {each.code for each in {*CODES.values()} - final if each.transient and not each.retryable}
    assert not_executed == {each.code for each in NOT_EXECUTED}
    page = (ROOT / "docs" / "protocol.md").read_text()
    section = page.split("### Calls that are sent again")[1].split("2. ")[0]
    first, second = section.split("These pass by themselves: ")[1].split("These ended with ")
    for text, codes in ((first, passing), (second, not_executed)):
        assert {*re.findall("`([a-z-]+)`", text)} & {*CODES} == codes


def test_its_types_have_every_export() -> None:
    """Errors with their fields; of other modules, the names that ``index.mjs`` exports."""
    types = (PACKAGE / "index.d.ts").read_text()
    typed = {"str": "string", "int": "number", "float": "number", "list[str]": "string[]"}
    for name, fields in re.findall(
        r'^export const (\w+) = define\("[a-z-]+", "(.*?)"', (PACKAGE / "errors.mjs").read_text(), re.MULTILINE
    ):
        members = [field.split(": ") for field in fields.split(", ") if field]
        body = "; ".join(f"{field}: {typed[kind]}" for field, kind in members)
        assert f"export class {name} extends P2PError<{f'{{ {body} }}' if body else '{}'}> {{}}\n" in types
    for name in re.findall(r"\w+", " ".join(re.findall(r"export \{(.*?)\}", (PACKAGE / "index.mjs").read_text()))):
        assert re.search(rf"^export (class|function|const) {name}\b", types, re.MULTILINE)


def test_packages_are_pinned_and_name_no_registry() -> None:
    package = json.loads((PACKAGE / "package.json").read_text())
    lock = json.loads((PACKAGE / "package-lock.json").read_text())
    for kind in ("dependencies", "devDependencies"):
        assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in package[kind].values())
        assert lock["packages"][""][kind] == package[kind]
    page = (ROOT / "docs" / "dependencies.md").read_text()
    for path, each in lock["packages"].items():
        assert "resolved" not in each
        if path:
            assert each["integrity"].startswith("sha512-")
            assert f"| {path.removeprefix('node_modules/')} | {each['version']} |" in page
