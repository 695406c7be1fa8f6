"""What the README shows is run as it stands there, and what it lists is complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastn_p2p import cli
from fastn_p2p.exits import TABLE
from tests.e2e.services import web_server
from tests.harness import eventually, is_alive

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def block(marker: str) -> str:
    """The code block below ``<!-- marker -->``."""
    found = re.findall(rf"^<!-- {re.escape(marker)} -->\n```\w*\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{len(found)} blocks are marked {marker!r}"
    return str(found[0])


class Machine:
    """A shell whose daemon, home and host directory are its own."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.packages = directory / "packages"
        self.packages.mkdir(exist_ok=True)
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("FASTN_")},
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(self.packages),
            "FASTN_HOME": str(directory / name),
            "FASTN_HOST_DIRECTORY": str(directory / f"{name}-hosts"),
            "FASTN_NETWORK": "local",
        }

    def shell(self, script: str) -> str:
        """Runs it; its standard output."""
        return self._run("bash", "-euo", "pipefail", "-c", script)

    def python(self, program: str, *arguments: str) -> str:
        return self._run(sys.executable, "-c", program, *arguments)

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.env, cwd=self.directory, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """The README's command that stays in the foreground, in the background."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {block('run: daemon')}"],
            env=self.env,
            cwd=self.directory,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        try:
            line = process.stderr.readline()
            assert " ready in " in line, line + process.stderr.read()
            yield
        finally:
            process.terminate()
            rest = process.stderr.read()
            code = process.wait(20)
            process.stderr.close()
        assert (code, rest) == (0, "")
        eventually(lambda: not is_alive(process.pid), "the daemon is gone")


def test_quick_start(tmp_path: Path) -> None:
    """In the order of the README, with one daemon."""
    machine = Machine(tmp_path, "home")
    with machine.daemon():
        started = machine.shell(block("run: quick start"))
        assert re.match(r"[0-9a-v]{52}\n", started)
        assert re.search(r"Echo +backup +everyone", started)
        called = machine.shell(block("run: call"))
        assert re.sub(r"^[0-9a-v]{52}\n", "", called) == block("output: call")
        ticket = machine.shell("fastn-p2p ticket alice").strip()

        assert machine.python(block("run: async"), ticket) == (
            "Echo: hi\nMessageEmpty {'length': 0, 'max_length': 1000}\n"
        )
        assert machine.python(block("run: sync"), ticket) == "Echo: hi\nEcho: 0\nEcho: 1\nEcho: 2\n"

        install_greet(machine)
        machine.shell("fastn-p2p add-protocol alice --protocol Greet")
        request = """echo '{"name": "Bob"}' | fastn-p2p call %s Greet --as bob"""
        assert machine.shell(request % ticket).startswith('{"greeting":"Hello Bob, also known as ')

        listed = machine.shell(block("run: life"))
        assert "\nGreet  Greets whoever says a name.\n" in listed
        assert 'greeting  string  default "Hello"' in listed
        assert machine.shell(request % ticket).startswith('{"greeting":"Hello Bob')

        (machine.packages / "shout.py").write_text(block("run: stream protocol"))
        install(machine, "shout", "Shout = shout:Shout")
        machine.shell("fastn-p2p add-protocol alice --protocol Shout")
        assert machine.shell(f"PEER={ticket}\n" + block("run: stream command")) == "HELLO\n"
        assert machine.python(block("run: stream program"), ticket) == "5 bytes\n"
        assert (tmp_path / "shouted.txt").read_bytes() == b"HELLO"

        machine.shell(block("run: taking back"))
        assert machine.shell("fastn-p2p list-identities | cut -f 1,3") == "alice\toffline\nbob\tonline\n"
        assert "backup" not in machine.shell("fastn-p2p status")


def install_greet(machine: Machine) -> None:
    (machine.packages / "greet.py").write_text(block("run: protocol"))
    group, entry = block("entry point").replace('"', "").splitlines()
    assert group == "[project.entry-points.fastn_p2p.protocols]"
    install(machine, "greet", entry)


def install(machine: Machine, package: str, entry: str) -> None:
    """What pip does with a package that has this entry point, while the daemon runs."""
    metadata = machine.packages / f"{package}-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[fastn_p2p.protocols]\n{entry}\n")


def test_a_program_serves(tmp_path: Path) -> None:
    """The program of the README, and somebody who calls it."""
    machine = Machine(tmp_path, "home")
    with machine.daemon():
        machine.shell("fastn-p2p create-identity alice && fastn-p2p identity-online alice")
        program = subprocess.Popen([sys.executable, "-c", block("run: server")], env=machine.env)
        try:
            eventually(lambda: "Clock" in machine.shell("fastn-p2p status --json"), "the program serves")
            call = """echo '{"time": "morning"}' | fastn-p2p call $(fastn-p2p ticket alice) Clock"""
            assert machine.shell(call) == '"good morning"\n'
        finally:
            program.terminate()
            program.wait(10)

        machine.shell(block("run: declare"))
        assert "waiting for a program" in machine.shell("fastn-p2p status")
        program = subprocess.Popen([sys.executable, "-c", block("run: serve all")], env=machine.env)
        try:
            eventually(lambda: "waiting for" not in machine.shell("fastn-p2p status --json"), "it serves alice's Notes")
            for note in ("one", "two", "three"):
                machine.shell(f"fastn-p2p call $(fastn-p2p ticket alice) Notes --command notes.add --data '\"{note}\"'")
            read = machine.shell("fastn-p2p call $(fastn-p2p ticket alice) Notes --data null")
            assert read == '["one","two"]\n'
        finally:
            program.terminate()
            program.wait(10)

    install_greet(machine)
    assert machine.python(block("run: testing")) == ""


def test_two_machines(tmp_path: Path) -> None:
    """Daemons that share nothing but a ticket."""
    bob, alice = Machine(tmp_path, "bob"), Machine(tmp_path, "alice")
    with bob.daemon(), alice.daemon():
        bob.shell(block("run: two machines, bob"))
        output = alice.shell(block("run: two machines, alice"))
        assert output.splitlines()[-1] == '{"echoed":"Echo: Hello Bob!"}'
        called_back = """echo '{"message": "Hello Alice!"}' | fastn-p2p call %s Echo"""
        alice_id = output.splitlines()[0]
        alice.shell("fastn-p2p add-protocol alice --protocol Echo")
        assert bob.shell(called_back % alice_id) == '{"echoed":"Echo: Hello Alice!"}\n'


def test_files(tmp_path: Path) -> None:
    """Shared by one machine, fetched and sent by another, which has to wait until that is accepted."""
    bob, alice = Machine(tmp_path, "bob"), Machine(tmp_path, "alice")
    for machine, name in ((bob, "bob-user"), (alice, "alice-user")):
        machine.env["HOME"] = str(tmp_path / name)
    shared, kept = tmp_path / "bob-user" / "shared", tmp_path / "alice-user" / "from-bob"
    kept.parent.mkdir()
    photo = shared / "photos" / "2026" / "one.jpg"
    photo.parent.mkdir(parents=True)
    photo.write_bytes(b"a photo")
    (shared / "report.pdf").write_bytes(b"a report")
    (tmp_path / "alice-user" / "holiday").mkdir()
    (tmp_path / "alice-user" / "holiday" / "plan.txt").write_text("a plan")
    with bob.daemon(), alice.daemon():
        for machine, name in ((bob, "bob"), (alice, "alice")):
            machine.shell(f"fastn-p2p create-identity {name}; fastn-p2p identity-online {name}")
            machine.shell(f"fastn-p2p ticket {name} > {name}.ticket")
        alice.shell('fastn-p2p peer add "$(cat bob.ticket)" --name bob')
        bob.shell(block("run: files, bob"))
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(alice.shell, block("run: files, alice"))
            eventually(lambda: bob.shell("fastn-p2p files offers"), "alice has offered something", 30)
            offers = bob.shell(block("run: files, accept"))
            listed = running.result(30)
    assert [line.split("\t")[0::3] for line in listed.splitlines()] == [
        ["directory", "photos"],
        ["file", "report.pdf"],
    ]
    assert (kept / "photos" / "2026" / "one.jpg").read_bytes() == b"a photo"
    assert (kept / "report.pdf").read_bytes() == b"a report"
    assert re.match(r"[0-9a-f]{16}\talice\twaiting\t1\t6\t.*\tholiday\n", offers)
    assert (tmp_path / "bob-user" / "inbox" / "holiday" / "plan.txt").read_text() == "a plan"


def test_mail(tmp_path: Path) -> None:
    """Sent on one machine while the other one is off, and read there."""
    bob, alice = Machine(tmp_path, "bob"), Machine(tmp_path, "alice")
    bob.env["HOME"] = str(tmp_path)
    (tmp_path / "menu.pdf").write_bytes(b"a menu")
    with alice.daemon():
        with bob.daemon():
            for machine, name in ((bob, "bob"), (alice, "alice")):
                machine.shell(f"fastn-p2p create-identity {name}; fastn-p2p identity-online {name}")
                machine.shell(f"fastn-p2p ticket {name} > {name}.ticket")
            alice.shell('fastn-p2p peer add "$(cat bob.ticket)" --name bob')
            bob.shell(block("run: mail, bob"))
        sent = alice.shell(block("run: mail, alice")).splitlines()
        assert sent[1].split("\t")[1::4] == ["waiting", "Lunch?"]
        with bob.daemon():
            assert alice.python(block("run: mail program")) == "delivered\n"
            listed, body = bob.shell(block("run: mail, read")).rsplit("\n", 2)[:2]
    assert [line.split("\t")[2::4] for line in listed.splitlines()] == [["alice", "Lunch?"], ["alice", "Order 66"]]
    assert body == "At noon, as always."
    assert (tmp_path / "from-alice" / "menu.pdf").read_bytes() == b"a menu"


def test_tunnel(tmp_path: Path) -> None:
    """A web server of one machine, reached from the other one."""
    bob, alice = Machine(tmp_path, "bob"), Machine(tmp_path, "alice")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "page").write_text("this is bob's page")
    with bob.daemon(), alice.daemon(), web_server(tmp_path / "site") as target:
        for machine, name in ((bob, "bob"), (alice, "alice")):
            machine.shell(f"fastn-p2p create-identity {name}; fastn-p2p identity-online {name}")
            machine.shell(f"fastn-p2p ticket {name} > {name}.ticket")
        alice.shell('fastn-p2p peer add "$(cat bob.ticket)" --name bob')
        bob.shell('fastn-p2p peer add "$(cat alice.ticket)" --name alice')
        bob.shell(block("run: tunnel, bob").replace("127.0.0.1:8000", target))
        command = block("run: tunnel, alice").replace("127.0.0.1:9000", "127.0.0.1:0")
        forward = subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            env=alice.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert forward.stdout is not None
        try:
            address = forward.stdout.readline().strip()
            with urllib.request.urlopen(f"http://{address}/page", timeout=20) as page:
                assert page.read() == b"this is bob's page"
        finally:
            forward.terminate()
            forward.stdout.close()
            assert forward.wait(10) == 0


def test_chat(tmp_path: Path) -> None:
    """alice writes while bob is away; he finds it when he comes."""
    bob, alice = Machine(tmp_path, "bob"), Machine(tmp_path, "alice")
    with bob.daemon(), alice.daemon():
        for machine, name in ((bob, "bob"), (alice, "alice")):
            machine.shell(f"fastn-p2p create-identity {name}; fastn-p2p identity-online {name}")
            machine.shell(f"fastn-p2p ticket {name} > {name}.ticket")
        setup = block("run: chat, bob")
        bob.shell(setup)
        alice.shell(setup.replace("alice", "ALICE").replace("bob", "alice").replace("ALICE", "bob"))
        bob.shell("fastn-p2p identity-offline bob")
        assert alice.shell(block("run: chat, alice")) == block("output: chat")
        bob.shell("fastn-p2p identity-online bob")
        read = "fastn-p2p chat alice --last 1 < /dev/null | cut -f 2-"
        eventually(lambda: bob.shell(read) == "alice\tdinner at eight?\n", "it has come", 30)


def commands() -> set[str]:
    """Every command as it is typed."""
    import typer

    group = typer.main.get_command(cli.app)
    found = set()
    for name in cli.COMMANDS:
        command = group.commands[name]  # type: ignore[attr-defined]
        nested = getattr(command, "commands", None)
        found.update({name} if nested is None else {f"{name} {each}" for each in nested})
    return found


def test_every_command_is_in_the_readme_and_the_readme_has_no_others() -> None:
    table = re.findall(r"^\| `fastn-p2p ([a-z -]+)`", README, re.MULTILINE)
    assert len(table) == len(set(table))
    assert set(table) == commands()
    mentioned = re.findall(r"fastn-p2p ((?:peer|files|mail) [a-z]+|[a-z][a-z-]*)", README)
    assert set(mentioned) <= commands()


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_a_page_of_the_documentation_shows_no_other_commands(page: Path) -> None:
    text = page.read_text()
    shown = re.findall(r"`fastn-p2p ((?:peer|files|mail) [a-z]+|[a-z][a-z-]*)", text)
    for code in re.findall(r"^```(?:sh|console)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        shown += re.findall(r"fastn-p2p ((?:peer|files|mail) [a-z]+|[a-z][a-z-]*)", code)
    assert set(shown) <= commands() | {"peer", "files", "mail"}


def test_exit_codes_are_those_of_the_program() -> None:
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == {int(code): meaning for code, meaning in TABLE.items()}
    assert len(rows) == len(TABLE)


def test_every_code_block_is_run_or_known() -> None:
    """A new block gets a marker and a test, or its first line is listed here."""
    unmarked = re.findall(r"(?<! -->\n)^```(?:sh|python|toml)\n(.*)$", README, re.MULTILINE)
    assert unmarked == [
        "make demo   # two daemons on this machine, calls between them, a process killed and healed",
        "python3 -m venv ~/.local/share/fastn-p2p",
    ]
    marked = re.findall(r"^<!-- ((?:run|output|entry)[^>]*) -->$", README, re.MULTILINE)
    used = re.findall(r"""block\(["']([^"']+)["']\)""", Path(__file__).read_text())
    assert sorted(marked) == sorted(set(used))


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
