"""Pages whose marked code blocks the tests run."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["INSTALLATION", "ROOT", "TEXT", "TEXTS", "block"]

ROOT = Path(__file__).resolve().parents[2]
RUN = (
    "README.md", "docs/tutorial.md", "docs/installing.md", "docs/protocols.md", "docs/python.md",
    "docs/writing-protocols.md", "docs/files.md", "docs/mail.md", "docs/tunnels.md", "docs/chat.md",
)  # fmt: skip
"""Pages whose marked blocks are run, in a reader's order."""
TEXTS = {name: (ROOT / name).read_text() for name in RUN}
TEXT = "\n".join(TEXTS.values())
"""Text of all of them."""
INSTALLATION = ["run: install with make", "run: install with pipx", "run: install with uv"]
"""Blocks of which a reader follows one."""


def block(marker: str) -> str:
    """Return the code block below ``<!-- marker -->``."""
    found = re.findall(rf"^<!-- {re.escape(marker)} -->\n```\w*\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{len(found)} blocks are marked {marker!r}"
    return str(found[0])
