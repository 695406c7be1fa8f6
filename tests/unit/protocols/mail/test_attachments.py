"""Attachments saved as files: a name that can do harm is used only on request."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastn_p2p.protocols.mail.cli import RiskyName, save_attachments
from fastn_p2p_client.mail.messages import Attachment


@pytest.mark.parametrize("name", [".bashrc", "setup.exe", "x.desktop", "NUL", "trailing "])
def test_an_attachment_with_a_risky_name_is_saved_only_on_request(tmp_path: Path, name: str) -> None:
    attachments = [Attachment("good.txt", b"good"), Attachment(name, b"evil")]
    with pytest.raises(RiskyName):
        save_attachments(attachments, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert len(save_attachments(attachments, tmp_path, hidden=True)) == 2
