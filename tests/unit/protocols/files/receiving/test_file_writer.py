"""The event loop's thread writes a file while the disk is fast, another thread while it is not."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from fastn_p2p.protocols.files.errors import FileError
from fastn_p2p.protocols.files.framing import BLOCK
from fastn_p2p.protocols.files.receiving.file_writer import QUICK, RELIABLE, FileWriter
from fastn_p2p.protocols.files.receiving.partial_file import PartialFile

SLOW = 2 * QUICK


class Disk(PartialFile):
    """A file whose writing takes as long as a test says."""

    takes = 0.0
    now = 0.0
    fails = False
    threads: list[int]

    def write(self, parts: Iterable[memoryview]) -> None:
        if self.fails:
            raise FileError("DiskFull", "no space left", "file")
        self.threads.append(threading.get_ident())
        super().write(parts)
        self.now += self.takes

    def clock(self) -> float:
        return self.now

    def aside(self) -> list[bool]:
        """Return for each write since the last call if another thread did it."""
        threads, self.threads = self.threads, []
        return [each != threading.get_ident() for each in threads]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    directory = os.open(tmp_path, os.O_RDONLY)
    file = Disk(directory, "file", "0" * 52, "file")
    file.threads = []
    yield file
    file.close()
    os.close(directory)


def block(number: int = 0) -> memoryview:
    return memoryview(bytes([number % 256]) * BLOCK)


async def write(writer: FileWriter, blocks: int) -> None:
    for number in range(blocks):
        await writer.add(block(number))
        await writer.flush()


async def test_a_command_writes_by_itself_while_the_disk_is_quick(disk: Disk) -> None:
    writer = FileWriter(disk, may_block_loop=True, clock=disk.clock)
    await write(writer, 5)
    assert disk.aside() == [False] * 5


async def test_one_slow_write_is_enough_and_trust_returns_slowly(disk: Disk) -> None:
    writer = FileWriter(disk, may_block_loop=True, clock=disk.clock)
    disk.takes = SLOW
    await write(writer, 3)
    assert disk.aside() == [False, True, True]
    disk.takes = QUICK / 2
    await write(writer, RELIABLE + 2)
    assert disk.aside() == [True] * RELIABLE + [False] * 2


async def test_a_process_that_has_other_work_never_waits_for_the_disk(disk: Disk) -> None:
    writer = FileWriter(disk, may_block_loop=False, clock=disk.clock)
    await write(writer, 3)
    assert disk.aside() == [True] * 3


@pytest.mark.parametrize("alone", [True, False])
async def test_every_byte_is_in_the_file_in_its_place(disk: Disk, tmp_path: Path, alone: bool) -> None:
    """The same holds if the thread changes in the middle of the file."""
    data = os.urandom(7 * BLOCK + 17)

    writer = FileWriter(disk, may_block_loop=alone, clock=disk.clock)
    for start in range(0, len(data), 100_000):
        disk.takes = SLOW if start // BLOCK == 3 else 0.0
        await writer.add(memoryview(data)[start : start + 100_000])
    await writer.flush()
    (path,) = tmp_path.iterdir()
    assert path.read_bytes() == data
    assert disk.size == len(data)


@pytest.mark.parametrize("alone", [True, False])
async def test_a_failed_write_is_raised_by_the_next_write(disk: Disk, alone: bool) -> None:
    writer = FileWriter(disk, may_block_loop=alone, clock=disk.clock)
    disk.fails = True
    with pytest.raises(FileError, match="no space left"):
        await write(writer, 1)
