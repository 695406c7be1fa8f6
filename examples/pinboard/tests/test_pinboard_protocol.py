"""Tests of the pinboard without a daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pinboard_protocol import Board, Follow, List, Note, Pin, Pinboard, Pinned, Unpin, Unpinned

from fastn_p2p_client import ApplicationError, BadRequest, PublicKey
from fastn_p2p_client.errors import InvalidConfig
from fastn_p2p_client.protocol import Peer
from fastn_p2p_client.testing import ANONYMOUS_PEER, ProtocolClient, serve

BOB = Peer(PublicKey("nekf7jqcn541r8jhsp9756pssne1aqihas7a1ebgql4ud521h0ng"), "bob")


@asynccontextmanager
async def board(workspace: Path, peer: Peer = ANONYMOUS_PEER, **config: Any) -> AsyncIterator[ProtocolClient]:
    async with serve(Pinboard, config, workspace=workspace, peer=peer) as pinboard:
        yield pinboard


async def texts(pinboard: ProtocolClient) -> list[str]:
    return [note.text for note in (await pinboard.call(List(), returns=Board)).notes]


def test_notes_stay_until_they_are_unpinned(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with board(tmp_path) as pinboard:
            assert await pinboard.call(Pin("milk"), returns=Pinned) == Pinned(1)
        async with board(tmp_path, BOB) as pinboard:  # after a restart
            assert await pinboard.call(Pin("bread"), returns=Pinned) == Pinned(2)
            assert await texts(pinboard) == ["milk", "bread"]
            for number, kind in ((1, "NotYours"), (9, "NoSuchNote")):
                with pytest.raises(ApplicationError) as refused:
                    await pinboard.call(Unpin(number))
                assert (refused.value.kind, refused.value.payload) == (kind, {"number": number})
            assert await pinboard.call(Unpin(2), returns=Unpinned) == Unpinned()
            assert await texts(pinboard) == ["milk"]

    asyncio.run(scenario())


def test_applies_the_limits_of_the_config(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with board(tmp_path, max_length=5, max_notes=2) as pinboard:
            with pytest.raises(ApplicationError, match="NoteTooLong"):
                await pinboard.call(Pin("too long"))
            with pytest.raises(BadRequest, match="text"):
                await pinboard.call(Pin(""))
            for text in ("one", "two", "three"):
                await pinboard.call(Pin(text))
            assert await texts(pinboard) == ["two", "three"]
        async with board(tmp_path, max_notes=1) as pinboard:  # a smaller one
            assert await texts(pinboard) == ["three"]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("config", "words"), [({"max_notes": 0}, "max_notes"), ({"limit": 1}, "limit"), ({"max_length": "5"}, "max_length")]
)
def test_rejects_an_invalid_config(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    async def scenario() -> None:
        async with board(tmp_path, **config):
            pass

    with pytest.raises(InvalidConfig, match=words):
        asyncio.run(scenario())


def test_rejects_an_export_to_a_missing_directory(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with board(tmp_path, export=str(tmp_path / "missing")):
            pass

    with pytest.raises(InvalidConfig, match="export"):
        asyncio.run(scenario())


def test_followers_get_current_and_new_notes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with board(tmp_path, BOB) as pinboard:
            await pinboard.call(Pin("before"))
            session = await pinboard.connect()
            seen = b""
            for text in ("before", "now"):
                while not seen.endswith(f'"text":"{text}"'.encode()) and text.encode() not in seen:
                    seen += await session.read()
                if text == "before":
                    await pinboard.call(Pin("now"))
            notes = [msgspec.json.decode(line, type=Note) for line in seen.splitlines()]
            assert [(note.number, note.text, note.author) for note in notes][1] == (2, "now", "bob")
            async with await pinboard.connect(Follow(after=1)) as brief:
                await brief.send_eof()
                assert b"".join([chunk async for chunk in brief]).count(b"\n") == 1
            await session.close()

    asyncio.run(scenario())
