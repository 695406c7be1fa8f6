"""Storage of an inbox, and its move to another directory."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fastn_p2p.protocols.mail.storage import FILE, Storage, check_storage_dir
from fastn_p2p_client.errors import StorageFailed
from tests.support.mail_endpoints import BOB, Clock, MailEndpoint


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@pytest.fixture
def var_mail(tmp_path: Path) -> Path:
    (tmp_path / "mail").mkdir()
    return tmp_path / "mail"


async def write(path: Path, *ids: str) -> None:
    async with MailEndpoint(path, Clock()) as side:
        for id in ids:
            await side.accept(id)


async def ids(path: Path) -> list[str]:
    async with MailEndpoint(path, Clock()) as side:
        return list(await side.sent())


async def test_mail_moves_to_a_private_directory_and_back(workspace: Path, var_mail: Path) -> None:
    await write(workspace / FILE, "one", "two")
    storage = Storage(workspace, BOB, "work")
    path = storage.prepare(str(var_mail))
    assert path == var_mail / BOB.id52 / "work" / FILE
    assert await ids(path) == ["one", "two"]
    assert stat.S_IMODE(path.parent.stat().st_mode) == stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not (workspace / FILE).exists()
    assert storage.prepare(str(var_mail)) == path
    storage.release()
    await write(path, "three")
    assert Storage(workspace, BOB, "work").prepare("") == workspace / FILE
    assert await ids(workspace / FILE) == ["one", "two", "three"]
    assert list(var_mail.iterdir()) == []


def test_bindings_and_daemons_with_one_directory_do_not_meet(workspace: Path, var_mail: Path, tmp_path: Path) -> None:
    one, other = Storage(workspace, BOB, "default"), Storage(workspace / "other", BOB, "work")
    (workspace / "other").mkdir()
    assert one.prepare(str(var_mail)) != other.prepare(str(var_mail))
    (tmp_path / "second").mkdir()
    twin = Storage(tmp_path / "second", BOB, "default")
    with pytest.raises(StorageFailed, match="another daemon or binding uses it"):
        twin.prepare(str(var_mail))
    one.release()
    assert twin.prepare(str(var_mail))
    twin.release()
    other.release()


async def test_mail_stays_where_it_was_when_it_cannot_move(workspace: Path, var_mail: Path, tmp_path: Path) -> None:
    await write(workspace / FILE, "ours")
    there = var_mail / BOB.id52 / "default"
    there.mkdir(parents=True)
    await write(there / FILE, "others")
    storage = Storage(workspace, BOB, "default")
    with pytest.raises(StorageFailed, match="contains mail already"):
        storage.prepare(str(var_mail))
    assert storage.directory == workspace
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / BOB.id52).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageFailed):
        storage.prepare(str(tmp_path / "link"))
    assert (await ids(workspace / FILE), await ids(there / FILE)) == (["ours"], ["others"])


async def test_the_rest_of_an_interrupted_move_is_removed(workspace: Path, var_mail: Path) -> None:
    await write(workspace / FILE, "one")
    old = (workspace / FILE).read_bytes()
    storage = Storage(workspace, BOB, "default")
    path = storage.prepare(str(var_mail))
    (workspace / FILE).write_bytes(old)
    assert storage.prepare(str(var_mail)) == path
    assert not (workspace / FILE).exists()
    storage.release()
    storage.remove()
    assert list(var_mail.iterdir()) == []


@pytest.mark.parametrize(
    ("storage_dir", "words"),
    [
        ("mail", "not an absolute path"),
        ("/nowhere/at/all", "not an existing directory"),
        ("/proc/1/nothing", "not an existing directory"),
        ("~nobody-of-that-name/x", "home directory"),
        ("/tmp/\0", "not an absolute path"),
    ],
)
def test_a_directory_that_cannot_be_used_is_refused(storage_dir: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        check_storage_dir(storage_dir)
    assert str(caught.value).endswith("at `$.storage_dir`")
