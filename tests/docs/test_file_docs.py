"""`docs/files.md` says what the code does."""

from __future__ import annotations

import re
import typing
from typing import Any

import msgspec

from fastn_p2p.protocols._shared.path_names import MAX_DEPTH, MAX_PART, MAX_PATH
from fastn_p2p.protocols.files import messages as f
from fastn_p2p.protocols.files.cli import exit_code
from fastn_p2p.protocols.files.config import FileTransferConfig
from fastn_p2p.protocols.files.errors import Kind
from fastn_p2p.protocols.files.events import MAX_LEFT_OUT, Event
from fastn_p2p.protocols.files.framing import BLOCK, MAX_MESSAGE
from fastn_p2p.protocols.files.progress import Ended
from fastn_p2p.protocols.files.protocol import MAX_SESSIONS, MAX_WALKS
from fastn_p2p.protocols.files.receiving.file_writer import QUICK, RELIABLE
from fastn_p2p.protocols.files.receiving.offer_inbox import EXPIRES, MAX_LIST, MAX_LISTS, MAX_OFFERS, MAX_WAITING
from fastn_p2p.protocols.files.retry import RETRY_TIMEOUT

from .page_tables import code, read, table

PAGE = "files.md"


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def described(kinds: Any) -> dict[str, list[str]]:
    """Tag → fields."""
    return {each.__struct_config__.tag: list(each.__struct_fields__) for each in typing.get_args(kinds)}


def test_the_config_is_documented_with_its_defaults() -> None:
    rows = {code(row[0]): row[1] for row in table(PAGE, "Sharing and taking", "config", "default")}
    known = {field.name: field.default for field in msgspec.structs.fields(FileTransferConfig)}
    assert rows == {name: str(default) if isinstance(default, int) else "none" for name, default in known.items()}


def test_every_failure_is_documented_with_its_exit_code() -> None:
    rows = {code(row[0]): row[2] for row in table(PAGE, "Failures", "kind", "meaning", "exit")}
    assert rows == {kind: str(exit_code(kind).value) for kind in typing.get_args(Kind)}


def test_every_event_is_documented_with_its_fields() -> None:
    rows = {code(row[0]): names(row[1]) for row in table(PAGE, "For scripts", "event", "fields")}
    assert rows == described(Event | Ended)


def test_every_request_is_documented_with_its_fields() -> None:
    rows = {code(row[0]): names(row[1]) for row in table(PAGE, "Calls", "type", "fields")}
    assert rows == described(f.Request)


def test_the_opening_of_a_session_is_documented() -> None:
    rows = [code(row[0]) for row in table(PAGE, "Sessions", "initial data")]
    assert rows == [
        "{" + ", ".join([f'"type": "{tag}"', *(f'"{field}"' for field in fields)]) + "}"
        for tag, fields in described(f.SessionRequest).items()
    ]


def test_every_message_is_documented_with_its_tag_and_fields() -> None:
    rows = {(int(row[0]), code(row[1])): names(row[3]) for row in table(PAGE, "Sessions", "tag", "message")}
    said = typing.get_args(f.TransferMessage)
    assert rows == {(each.__struct_config__.tag, each.__name__): list(each.__struct_fields__) for each in said}


def test_numbers_in_the_text_are_those_of_the_code() -> None:
    text = " ".join(read(PAGE).split())
    for words in (
        f"at most {f.MAX_OFFER}",
        f"at most {f.MAX_PAGE:,} entries",
        f"at most {f.MAX_WAIT:g} s",
        f"blocks of {BLOCK // 1024} KiB",
        f"more than {QUICK * 1000:g} ms, until {RELIABLE} in a row",
        f"at most {MAX_MESSAGE // 1024**2} MiB",
        f"at most {MAX_WAITING} offers of one peer",
        f"{MAX_OFFERS} offers in all",
        f"more than {MAX_PART} bytes",
        f"more than {MAX_PATH:,} bytes or {MAX_DEPTH} parts",
        f"After {RETRY_TIMEOUT:g} seconds without a byte",
        f"at most {MAX_SESSIONS} sessions",
        f"at most {MAX_WALKS} walks",
        f"may take {MAX_LIST // 1024} KiB",
        f"at most {MAX_LISTS // 1024} KiB",
        f"the {MAX_WAITING} newest",
        f"After {EXPIRES // 86400} days",
        f"up to {MAX_LEFT_OUT:,} names",
        f"the first {f.MAX_NAMED}",
    ):
        assert words in text, words
