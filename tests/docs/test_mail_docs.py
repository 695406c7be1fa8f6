"""`docs/mail.md` says what the code does."""

from __future__ import annotations

from fastn_p2p.protocols.mail.cli import EXITS
from fastn_p2p.protocols.mail.inbox import MAX_STREAMS, MEMORY
from fastn_p2p.protocols.mail.protocol import Mail
from fastn_p2p_client.mail import messages as m
from fastn_p2p_client.retry import FIRST, LONGEST

from .page_tables import read

PAGE = "mail.md"


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


def test_every_kind_of_error_is_in_the_docstring_of_the_protocol() -> None:
    assert [kind for kind in EXITS if kind not in (Mail.__doc__ or "")] == []


def test_fields_of_mails_and_rejections_are_documented() -> None:
    text = " ".join(read(PAGE).split())
    for kind in (m.OutgoingMail, m.RejectedMail, m.MailContent, m.Attachment):
        fields = [f"`{field}`" for field in kind.__struct_fields__]
        assert f"{', '.join(fields[:-1])} and {fields[-1]}" in text
