"""Protocols that come with the daemon: which of them are served by one daemon of an identity only."""

from __future__ import annotations

from typing import Any

import pytest

from fastn_p2p.protocols.chat.protocol import Chat
from fastn_p2p.protocols.echo import Echo
from fastn_p2p.protocols.files.config import FileTransferConfig
from fastn_p2p.protocols.files.protocol import FileTransfer
from fastn_p2p.protocols.mail.protocol import Mail
from fastn_p2p.protocols.tunnel.protocol import Tunnel
from fastn_p2p_client.protocol import Protocol


@pytest.mark.parametrize(
    ("protocol", "config", "keeps"),
    [
        (Mail, None, True),
        (Chat, None, True),
        (FileTransfer, FileTransferConfig(inbox="/inbox"), True),
        (FileTransfer, FileTransferConfig(root="/shared"), False),
        (Echo, None, False),
        (Tunnel, None, False),
    ],
)
def test_a_protocol_keeps_state(protocol: type[Protocol], config: Any, keeps: bool) -> None:
    assert protocol.keeps_state(config) is keeps
