"""Heap of the fork server, arranged so that its children share as much of it as they can.

Problem: a child shares the memory of the fork server until it writes to a page. In Python even a read writes: it counts
references, and a call counts in the function's code. A child uses some 600 of 9,000 functions, spread over the whole
heap, and its new objects go into gaps between old ones. Each write of some bytes copied a page of 4,096. An identity's
process had 8.5 MB of its own that way, of which it needed less than 2 MB.

Idea: before the first fork, ``pack`` makes a new copy of the code that children run, next to each other. ``fill``
closes the gaps with objects that nothing uses, so that a child's objects go to pages of their own. Cost: about 1 MB,
once, and some hundredths of a second. Not covered: functions, types and dictionaries, which cannot be moved. Without
glibc (musl) only the small objects are arranged. Where an interpreter has other sizes of pools, this does less.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections import Counter
from collections.abc import Callable, Container, Iterable
from types import CodeType, FrameType, FunctionType
from typing import Any, Final

_POOL: Final = 16 * 1024
"""Bytes of a pool, which has small objects of one size (Objects/obmalloc.c of CPython)."""
_POOL_HEADER: Final = 48
_STEP: Final = 16
"""Small objects have sizes that are multiples of this."""
_LARGEST_SMALL: Final = 512
_SLACK: Final = 8
"""Objects that others may put into a pool while it is filled."""
_MOST_OBJECTS: Final = 100_000
"""Objects of one size that are made at most, in case that an interpreter has other pools."""
_LARGEST_GAP: Final = 64 * 1024
"""Bytes of the largest gap between larger objects that is closed."""
_BYTES: Final = sys.getsizeof(b"")

_MALLINFO2: Final = (
    *("arena", "ordblks", "smblks", "hblks", "hblkhd"),
    *("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"),
)
"""Fields of ``struct mallinfo2``."""

_ballast: list[object] = []
"""Objects in gaps."""


class _MallocInfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _MALLINFO2)


class CodeRecorder:
    """Context manager that records the code that runs in it, in this thread.

    Attributes:
        codes: the recorded code by its ``id``. A hash of code is one of all its instructions, which takes longer.
    """

    def __init__(self) -> None:
        self.codes: dict[int, CodeType] = {}

    def __enter__(self) -> CodeRecorder:
        sys.setprofile(self._on_event)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def add_modules(self, names: Container[str]) -> None:
        """Add the code of all functions and methods of these modules."""
        self.add(each.__code__ for each in _functions() if each.__module__ in names)

    def add(self, codes: Iterable[CodeType]) -> None:
        """Add code that has not run."""
        self.codes.update((id(each), each) for each in codes)

    def _on_event(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            self.codes[id(frame.f_code)] = frame.f_code


def arrange(codes: dict[int, CodeType]) -> None:
    """Arrange the heap for children that run this code, recorded by a ``CodeRecorder``.

    Call it once, after everything has been loaded. Empties ``codes``, because the gaps where the old code was are
    closed too. The garbage collector does not look again at what it has found to be no garbage.
    """
    gc.collect()
    functions = _functions()
    gc.freeze()
    fill()
    pack(functions, codes)
    functions.clear()
    codes.clear()
    gc.collect()
    fill()


def pack(functions: Iterable[FunctionType], codes: Container[int]) -> None:
    """Give the functions new copies of the code whose ``id`` is in ``codes``, made one after the other."""
    copies: dict[int, CodeType] = {}
    replaced: list[CodeType] = []  # kept to the end, so that no other code gets its id

    def copy(code: CodeType) -> CodeType:
        if (made := copies.get(id(code))) is not None:
            return made
        constants, inner = code.co_consts, False
        if any(isinstance(each, CodeType) for each in constants):
            constants = tuple(copy(each) if isinstance(each, CodeType) else each for each in constants)
            inner = any(new is not old for new, old in zip(constants, code.co_consts, strict=True))
        if inner or id(code) in codes:
            replaced.append(code)
            made = code.replace(co_consts=constants)
        else:
            made = code
        copies[id(code)] = made
        return made

    for function in functions:
        code = copy(function.__code__)
        if code is not function.__code__:
            function.__code__ = code


def _functions() -> list[FunctionType]:
    return [each for each in gc.get_objects() if isinstance(each, FunctionType)]


def fill() -> None:
    """Close the gaps between objects."""
    _fill_malloc()
    for size in range(_STEP, _LARGEST_SMALL + 1, _STEP):
        _fill_pools(size, _maker(size))


def _maker(size: int) -> Callable[[], object]:
    """Return a function that makes an object of the size."""
    if size < _BYTES:
        return object if size == object().__sizeof__() else complex
    length = size - _BYTES
    return lambda: bytes(length)


def _fill_pools(size: int, make: Callable[[], object]) -> None:
    """Make objects of one size until they fill a pool that was empty: then no pool of this size has a gap."""
    room = (_POOL - _POOL_HEADER) // size
    filled: list[object] = []
    while len(filled) < _MOST_OBJECTS:
        filled += [make() for _ in range(room)]
        latest = Counter(id(each) // _POOL for each in filled[-2 * room :])
        if max(latest.values()) >= room - _SLACK:
            break
    last, count = id(filled[-1]) // _POOL, Counter(id(each) // _POOL for each in filled)
    _ballast.extend(each for each in filled if (at := id(each) // _POOL) != last and count[at] < room - _SLACK)


def _fill_malloc() -> None:
    """Close gaps between larger objects, largest first. Objects above the last one that was in use close none."""
    libc: Any = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        return
    libc.mallinfo2.restype = _MallocInfo
    libc.sbrk.restype = ctypes.c_void_p
    info = libc.mallinfo2()
    end = libc.sbrk(0) - info.keepcost
    begin = libc.sbrk(0) - info.arena
    size = _LARGEST_GAP
    while size > _LARGEST_SMALL:
        made = bytes(size - _BYTES)
        if begin <= id(made) < end:
            _ballast.append(made)
        else:
            size -= max(_STEP, size // 32)
