"""`docs/files.md` says what the code does."""

from __future__ import annotations

from fastn_p2p.protocols._shared.path_names import MAX_DEPTH, MAX_PART, MAX_PATH
from fastn_p2p.protocols.files import messages as f
from fastn_p2p.protocols.files.events import MAX_LEFT_OUT
from fastn_p2p.protocols.files.framing import BLOCK, MAX_MESSAGE
from fastn_p2p.protocols.files.protocol import MAX_SESSIONS, MAX_WALKS
from fastn_p2p.protocols.files.receiving.file_writer import QUICK, RELIABLE
from fastn_p2p.protocols.files.receiving.offer_inbox import EXPIRES, MAX_LIST, MAX_LISTS, MAX_OFFERS, MAX_WAITING
from fastn_p2p.protocols.files.retry import RETRY_TIMEOUT

from .page_tables import read

PAGE = "files.md"


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
