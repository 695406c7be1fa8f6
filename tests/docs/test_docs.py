"""The pages in `docs/` say what the code does: their examples, links, paths and commands. Tables are generated.

Each test compares a page with the code itself, so that neither changes without the other.
"""

from __future__ import annotations

import base64
import hashlib
import inspect
import re
import typing
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from nacl.signing import SigningKey

from fastn_p2p.cli.command_groups import COMMANDS
from fastn_p2p.cli.typer_commands import program
from fastn_p2p.console.exit_codes import TABLE
from fastn_p2p_actors.credentials import Delegation, verify_delegation, verify_record
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.network.wire.framing import encode_frame
from fastn_p2p_actors.runtime.grants import make_grant
from fastn_p2p_client import limits
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.tickets import MAX_TICKET, Ticket

from .page_tables import code, read, table, tables
from .tables import ROOT, sources

PAGES: Final = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("examples/**/*.md"),
        ROOT / "client/README.md",
        *ROOT.glob("deploy/**/README.md"),
        *ROOT.glob("clients/*/*.md"),
    ]
)
FOLDERS: Final = (
    "client",
    "actors",
    "supervisor",
    "fastn_p2p",
    "tests",
    "docs",
    "deploy",
    "examples",
    "requirements",
    "clients",
)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def block(name: str, mark: str) -> str:
    """The code block below an HTML comment."""
    match = re.search(rf"<!-- {re.escape(mark)} -->\n```\n(.*?)```", read(name), re.DOTALL)
    assert match is not None, f"{name} has no block {mark!r}"
    return match[1]


def hex_of(text: str) -> str:
    """The hexadecimal digits at the beginning of each line, as one string."""
    digits = (re.match(r"(?:\s*[0-9a-f]{2}(?= |$))*", line, re.MULTILINE) for line in text.splitlines())
    return "".join(match[0] for match in digits if match is not None).replace(" ", "")


# ── the client protocol ──────────────────────────────────────────────────────────────────────────

CONVERSATIONS: Final = {
    "Control: from a program to the gateway": m.ControlRequest,
    "Control: from the gateway to a program": m.ControlReply,
    "Data: from a program, or from a serving process, to the network": m.DataRequest,
    "Data: from the network to a program, or to a serving process": m.DataMessage,
}


def test_no_message_is_missing_from_every_conversation() -> None:
    spoken = {cls for union in CONVERSATIONS.values() for cls in typing.get_args(union)}
    defined = {cls for _, cls in inspect.getmembers(m, inspect.isclass) if issubclass(cls, m.Message)} - {m.Message}
    assert spoken == defined


def test_answers_that_are_named_exist() -> None:
    for section in CONVERSATIONS:
        for found in tables(read("protocol.md")):
            if found.section == section and found.header[-1] == "answered by":
                for row in found.rows:
                    named = set(re.findall(r"`([A-Z]\w+)`", row[3]))
                    assert named <= set(dir(m)), row


REQUEST: Final = msgspec.msgpack.encode({"message": "hi"})
EXAMPLES: Final = {
    "Hello": m.encode(m.Hello(1, "my-program", 1)),
    "Call": m.encode(m.Call("alice", "bob", "Echo", "default", 10_000)),
    "payload": REQUEST,
    "Ping": encode_frame(wire.Ping()),
    "Request": encode_frame(wire.Request(1, bytes(32), bytes(32), "Echo", "default", 10_000), REQUEST),
}


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_are_what_the_code_encodes(example: str) -> None:
    assert hex_of(block("protocol.md", f"example: {example}")) == EXAMPLES[example].hex()


# ── the wire protocol ────────────────────────────────────────────────────────────────────────────


def test_the_alpn_is_that_of_the_code() -> None:
    assert f"The ALPN is `{wire.ALPN.decode()}`." in read("protocol.md")


# ── credentials ──────────────────────────────────────────────────────────────────────────────────


def joined(mark: str) -> str:
    return block("protocol.md", f"vector: {mark}").replace("\n", "")


def test_the_worked_example_holds() -> None:
    """Made afresh with nothing but PyNaCl and msgspec from the seeds on the page, then checked by our own code."""
    given = {row[0]: code(row[1]) for row in table("protocol.md", "Worked example", "what", "value")}
    identity = SigningKey(bytes.fromhex(given["identity's seed"]))
    endpoint = bytes(SigningKey(bytes.fromhex(given["transport seed"])).verify_key)
    public, now, day = bytes(identity.verify_key), int(given["now"]), 86_400
    assert given["identity's public key"] == public.hex()
    assert given["ID52"] == PublicKey(public).id52
    assert given["endpoint"] == endpoint.hex()

    def sealed(prefix: bytes, body: bytes) -> bytes:
        return msgspec.msgpack.encode([body, identity.sign(prefix + b"\0" + body).signature])

    lineage, epoch = bytes.fromhex(given["lineage"]), int(given["epoch"])
    body = msgspec.msgpack.encode([1, public, endpoint, lineage, epoch, now, now + day, ["speak"]])
    assert joined("delegation body") == body.hex()
    delegation = sealed(b"fastn-p2p/delegation/1", body)
    assert joined("delegation") == delegation.hex()
    fields = [1, public, now * 1000, now, now + day, [delegation], [], [given["address"]]]
    record = sealed(b"fastn-p2p/record/1", msgspec.msgpack.encode(fields))
    ticket = "fastn1" + base64.b32hexencode(record).decode().rstrip("=").lower()
    assert joined("ticket") == ticket

    checked = verify_delegation(delegation, now=now, endpoint=endpoint)
    assert checked == Delegation(1, public, endpoint, lineage, epoch, now, now + day, ("speak",))
    assert Ticket(ticket).record_bytes == record
    assert verify_record(record, now=now).endpoints[0].addresses == (given["address"],)

    key = bytes.fromhex(given["grant key"])
    grant = hashlib.blake2b(b"alice", key=key, digest_size=16, person=b"fastn-p2p-grant").digest()
    assert joined("grant") == grant.hex() == make_grant(key, "alice").hex()


def test_numbers_in_the_text_are_those_of_the_code() -> None:
    assert f"It has at most {MAX_TICKET:,} characters." in read("protocol.md")


# ── links, paths, commands ───────────────────────────────────────────────────────────────────────


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", without_blocks(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings}


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


@every_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


@every_page
def test_every_path_that_is_mentioned_exists(page: Path) -> None:
    mentioned = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", page.read_text())
    for path in mentioned:
        assert (ROOT / path).exists(), path


@every_page
def test_every_file_that_is_mentioned_exists(page: Path) -> None:
    """Also where the beginning of its path is left out."""
    files = [f"/{path.relative_to(ROOT)}" for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    named = set(re.findall(r"(?<![\w/.<>-])([\w/]+\.py)\b", page.read_text()))
    assert [name for name in sorted(named) if not any(file.endswith(f"/{name}") for file in files)] == []


def test_messages_of_the_pictures_exist() -> None:
    text = read("architecture.md")
    pictures = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)[:4]
    messages = {name for picture in pictures for name in re.findall(r"\b[A-Z][a-z]+(?:[A-Z][a-z]+)*\b", picture)}
    classes = {name for source in sources() for name in re.findall(r"^class (\w+)\(", source, re.MULTILINE)}
    assert messages - classes == set()
    assert len(messages) > 20


def command(words: list[str]) -> Any:
    """The command that the words begin with, or None when there is none."""
    found: Any = program()
    taken = 0
    for word in words:
        inside = getattr(found, "commands", None)
        default = getattr(found, "default_command", "")
        if inside is not None and default and word not in inside:
            return inside[default]
        if inside is None or word.startswith("-"):
            break
        if word not in set(inside):
            return None
        found, taken = inside[word], taken + 1
    return found if taken or words[0].startswith("-") else None


def options(found: Any) -> set[str]:
    return {name for parameter in found.params for name in (*parameter.opts, *parameter.secondary_opts)} | {"--help"}


@every_page
def test_every_command_that_is_mentioned_exists(page: Path) -> None:
    text = page.read_text()
    mentioned = re.findall(r"`fastn-p2p ([^`\n]+)`", text)
    for inside in re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        mentioned += re.findall(r"(?:^|\| |\$\()fastn-p2p +([^|>)\n]+)", inside, re.MULTILINE)
    for line in mentioned:
        words = [word.strip("[]") for word in line.split()]
        found = command(words)
        assert found is not None, f"fastn-p2p {line}"
        for option in (word for word in words if re.fullmatch(r"--[a-z]+(-[a-z]+)*", word)):
            assert option in options(found), f"fastn-p2p {line}"


def test_the_search_for_commands_has_teeth() -> None:
    assert command(["status"]) is not None
    assert command(["peer", "add", "TICKET"]) is not None
    assert command(["--version"]) is not None
    assert command(["peer", "ad"]) is None
    assert command(["statu"]) is None
    assert "--json" in options(command(["status"]))
    assert len(COMMANDS) > 1


@every_page
def test_every_make_target_that_is_mentioned_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for target in re.findall(r"`make ([a-z]+)", page.read_text()):
        assert target in targets, target


# ── streams ──────────────────────────────────────────────────────────────────────────────────────


def test_the_largest_reset_code_is_named() -> None:
    assert f"a code from 0 to {limits.MAX_RESET_CODE}" in read("streams.md")


def test_exit_codes_of_streams_are_those_of_the_command_line() -> None:
    rows = table("streams.md", "In a shell", "it ended because", "exit code")
    assert {int(row[1]) for row in rows} <= {number.value for number in TABLE}
