"""An identity that fills the disk is taken offline; one that is merely large is not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastn_p2p_actors.gateway.disk_guard import LEAST_GROWTH, MOST_RESERVE, DiskGuard, DiskSpace, space_of

GIB = 1 << 30
MIB = 1 << 20


class Disk:
    """A disk whose free space a test sets. The files of its identities are real, and have no content on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.free = 100 * GIB
        self.free_files = 1_000_000
        self.offline: list[tuple[str, int]] = []
        self.foreign = {"alice", "bob"}
        self.guard = DiskGuard(
            folder, folder.parent / "asleep", self._bring_offline, self.foreign.__contains__, self._space
        )
        for name in ("alice", "bob"):
            (folder / name / "protocols").mkdir(parents=True)

    def _space(self, _: Path) -> DiskSpace:
        return DiskSpace(self.free, 200 * GIB, self.free_files, 2_000_000)

    async def _bring_offline(self, name: str, grown: int) -> None:
        self.offline.append((name, grown))

    def write(self, name: str, size: int) -> None:
        """Add a file, which takes up no more than it says, and no less than the file system rounds to."""
        with (self.folder / name / "protocols" / f"file-{size}").open("wb") as file:
            file.write(b"x" * size)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    monkeypatch.setattr("fastn_p2p_actors.gateway.disk_guard.LEAST_GROWTH", MIB)
    (tmp_path / "asleep").mkdir()
    return Disk(tmp_path / "identities")


async def test_an_identity_that_fills_the_disk_is_taken_offline_once(disk: Disk) -> None:
    disk.write("bob", 8 * MIB)  # it was large before
    await disk.guard.look()
    disk.write("alice", 4 * MIB)
    disk.free = MOST_RESERVE + 2 * MIB
    await disk.guard.look()  # half the reserve and more is gone, by others: measured again
    assert disk.offline == []
    disk.write("alice", 3 * MIB)
    disk.free = MOST_RESERVE - MIB
    await disk.guard.look()
    ((name, grown),) = disk.offline
    assert (name, grown // MIB) == ("alice", 3)
    await disk.guard.look()
    assert len(disk.offline) == 1


async def test_an_identity_that_goes_on_is_taken_offline_again_and_so_is_the_next(disk: Disk) -> None:
    await disk.guard.look()
    disk.free = MOST_RESERVE + MIB
    await disk.guard.look()
    for name in ("alice", "bob", "alice"):
        disk.free = MOST_RESERVE - 4 * (1 + len(disk.offline)) * MIB
        disk.write(name, (6 + len(disk.offline)) * MIB)
        await disk.guard.look()
    assert [name for name, _ in disk.offline] == ["alice", "bob", "alice"]


async def test_a_disk_that_others_fill_costs_no_identity(disk: Disk) -> None:
    disk.write("bob", 8 * MIB)
    await disk.guard.look()
    disk.write("bob", 2 * MIB)
    disk.free = 10 * MIB
    for _ in range(3):
        await disk.guard.look()
    assert disk.offline == []


async def test_a_disk_that_is_full_at_the_start_costs_no_identity(disk: Disk) -> None:
    disk.write("bob", 8 * MIB)
    disk.free = MIB
    for _ in range(3):
        await disk.guard.look()
    assert disk.offline == []


async def test_an_identity_with_the_daemons_own_protocols_stays_online(disk: Disk) -> None:
    """They refuse what does not fit, and what they store is what its owner wanted."""
    disk.foreign.remove("bob")
    await disk.guard.look()
    disk.write("bob", 8 * MIB)
    disk.free = MOST_RESERVE - 8 * MIB
    await disk.guard.look()
    assert disk.offline == []


async def test_a_disk_that_stays_low_is_not_measured_again_and_again(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await disk.guard.look()
    measured: list[str] = []
    monkeypatch.setattr(disk.guard, "_runs_foreign_code", measured.append)
    disk.free = MOST_RESERVE // 2
    for _ in range(5):
        await disk.guard.look()
    assert sorted(measured) == ["alice", "bob"]
    disk.free -= MIB
    await disk.guard.look()
    assert len(measured) == 4


async def test_an_identity_that_sleeps_is_not_measured_again_until_it_has_been_awake(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    asleep = disk.folder.parent / "asleep" / "bob.json"
    disk.write("bob", 8 * MIB)
    asleep.touch()
    os.utime(asleep, (0, 0))
    await disk.guard.look()

    def is_measured(name: str) -> bool:
        measured.append(name)
        return True

    monkeypatch.setattr(disk.guard, "_runs_foreign_code", is_measured)
    for changed, expected in ((False, ["alice"]), (True, ["alice", "bob"])):
        measured: list[str] = []
        if changed:  # it was woken, has written, and has fallen asleep again
            asleep.unlink()
            asleep.touch()
        disk.free -= GIB
        await disk.guard.look()
        assert sorted(measured) == expected
    asleep.unlink()
    disk.free = MOST_RESERVE - MIB
    await disk.guard.look()
    assert disk.offline == [], "what it had before it slept is not new"


async def test_very_many_files_count_too(disk: Disk) -> None:
    await disk.guard.look()
    disk.free_files = 10
    for number in range(2 * MIB // 4096):
        (disk.folder / "alice" / "protocols" / str(number)).touch()
    await disk.guard.look()
    assert [name for name, _ in disk.offline] == ["alice"]


async def test_links_are_not_followed_and_a_missing_directory_is_no_error(disk: Disk, tmp_path: Path) -> None:
    (disk.folder / "alice/protocols/loop").symlink_to(tmp_path)
    await disk.guard.look()  # does not raise
    gone = DiskGuard(tmp_path / "missing", tmp_path / "asleep", disk._bring_offline, disk.foreign.__contains__)
    await gone.look()  # does not raise


def test_the_reserve_of_small_and_large_disks(tmp_path: Path) -> None:
    assert DiskSpace(0, 2 * GIB, 0, 0).reserve == int(0.05 * 2 * GIB)
    assert DiskSpace(0, 1000 * GIB, 0, 0).reserve == MOST_RESERVE > LEAST_GROWTH
    assert not DiskSpace(GIB, 1000 * GIB, 0, 0).is_low  # a file system that does not count files
    assert space_of(tmp_path).size > 0
