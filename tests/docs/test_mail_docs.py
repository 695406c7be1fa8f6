"""`docs/mail.md` says what the code does."""

from __future__ import annotations

import re
import typing

import msgspec

from fastn_p2p.protocols.mail.cli import EXITS
from fastn_p2p.protocols.mail.config import MailConfig
from fastn_p2p.protocols.mail.inbox import MAX_STREAMS, MEMORY
from fastn_p2p.protocols.mail.protocol import Mail
from fastn_p2p_client.mail import messages as m
from fastn_p2p_client.retry import FIRST, LONGEST

from .page_tables import code, read, table

PAGE = "mail.md"


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_the_config_is_documented_with_its_defaults() -> None:
    rows = {code(row[0]): row[1] for row in table(PAGE, "Mailboxes", "config", "default")}
    assert rows == {
        field.name: field.default if isinstance(field.default, str) else f"{field.default:.0f}"
        for field in msgspec.structs.fields(MailConfig)
    }


def test_every_kind_of_refusal_is_documented_with_its_exit_code() -> None:
    rows = {code(row[0]): row[2] for row in table(PAGE, "For programs", "kind", "meaning", "exit")}
    assert rows == {kind: str(exit.value) for kind, exit in EXITS.items()}
    assert all(f"{kind}" in (Mail.__doc__ or "") for kind in EXITS)


def test_every_request_is_documented_with_its_fields_and_its_answer() -> None:
    rows = table(PAGE, "Calls", "type", "fields", "answer")
    described = {each.__struct_config__.tag: list(each.__struct_fields__) for each in typing.get_args(m.Request)}
    assert {code(row[0]): names(row[1]) for row in rows} == described
    answers = {
        "send": m.MailAccepted,
        "list": m.InboxPage,
        "read": m.ReceivedMail,
        "delete": m.MailCount,
        "outbox": m.OutboxPage,
        "retry": m.MailCount,
        "deliver": m.DeliveryReceipt,
    }
    assert {code(row[0]): names(row[2]) for row in rows if code(row[0]) in answers} == {
        kind: list(answer.__struct_fields__) for kind, answer in answers.items()
    }


def test_numbers_in_the_text_are_those_of_the_code() -> None:
    text = " ".join(read(PAGE).split())
    for words in (
        f"at most {m.MAX_CONTENT:,} bytes",
        f"at most {m.MAX_SUBJECT} characters",
        f"at most {m.MAX_ATTACHMENTS} |",
        f"at most {m.MAX_PAGE:,} entries",
        f"at most {m.MAX_WAIT:g} seconds",
        f"at most {m.MAX_BATCH} mails",
        f"at most {m.MAX_BATCH_BYTES // 1024**2} MiB",
        f"after {FIRST:g} seconds, doubled each time up to {LONGEST:g}",
        f"at most {MAX_STREAMS} streams",
        f"for {MEMORY // 86_400_000} days",
    ):
        assert words in text, words


def test_fields_of_mails_and_rejections_are_documented() -> None:
    text = " ".join(read(PAGE).split())
    for kind in (m.OutgoingMail, m.RejectedMail, m.MailContent, m.Attachment):
        fields = [f"`{field}`" for field in kind.__struct_fields__]
        assert f"{', '.join(fields[:-1])} and {fields[-1]}" in text
