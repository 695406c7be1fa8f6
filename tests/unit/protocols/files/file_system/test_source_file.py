"""Blocks of a file that are being sent: none is overwritten before it was sent, and few are enough."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from fastn_p2p.protocols.files.file_system.safe_tree import SafeTree
from fastn_p2p.protocols.files.file_system.source_file import SourceFile
from fastn_p2p.protocols.files.framing import FRAME, HEAD

CONTENT = FRAME - HEAD
Read = Callable[[SourceFile], memoryview | None]


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    data = os.urandom(6 * CONTENT + 17)
    (tmp_path / "file").write_bytes(data)
    return data


@pytest.mark.parametrize("read", [SourceFile.read, SourceFile.read_now])
def test_a_block_does_not_change_while_it_is_referenced(tmp_path: Path, data: bytes, read: Read) -> None:
    source = SourceFile(SafeTree(tmp_path), ("file",))
    blocks = []
    while len(block := read(source) or source.read()) > HEAD:
        blocks.append(block)
    assert b"".join(block[HEAD:] for block in blocks) == data
    source.close()


def test_blocks_that_were_sent_are_used_again(tmp_path: Path, data: bytes) -> None:
    source = SourceFile(SafeTree(tmp_path), ("file",))
    held: list[memoryview] = []
    buffers = []
    while len(block := source.read()) > HEAD:
        held = [*held[-1:], block]
        buffers.append(id(block.obj))
    assert len(set(buffers)) == 3
    source.close()
