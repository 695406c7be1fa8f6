"""``config.toml``: read and checked as a whole, changed one key at a time with its comments kept."""

from __future__ import annotations

import fcntl
import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ..storage.atomic_files import make_directory, write_atomically
from .catalogue import SETTINGS, InvalidSettings, Setting, nearest

_HEADER: Final = re.compile(r"\s*\[+([^\[\]]+)\]")
_ENTRY: Final = re.compile(r"""\s*([\w."'\- ]+?)\s*=""")


def read_config(path: Path, descriptor: int | None = None) -> dict[str, Any]:
    """Return the settings that the file has: key → checked value. Empty if there is no file.

    Args:
        path: the file.
        descriptor: the file, opened by another process; it is closed.

    Raises:
        InvalidSettings: the file is not TOML, or has an unknown key or a value that is not allowed.
        OSError: it cannot be read.
    """
    try:
        with Path.open(path, "rb") if descriptor is None else open(descriptor, "rb") as file:  # noqa: PTH123
            data = file.read()
    except (FileNotFoundError, NotADirectoryError):  # the start says that the home is no directory
        return {}
    return _parse(path, data)[1]


def change_config(path: Path, setting: Setting, value: Any) -> None:
    """Set one key, and keep everything else in the file as it is. ``None`` removes the key.

    The file is created if it does not exist, and replaced as a whole.

    Raises:
        InvalidSettings: the file as it is cannot be read as settings.
        OSError: the file cannot be read.
        StorageFailed: it cannot be written. Nothing was changed.
    """
    make_directory(path.parent)
    with _exclusive(path.parent):
        _change(path, setting, value)


def _change(path: Path, setting: Setting, value: Any) -> None:
    import tomlkit  # only here: reading needs the standard library alone

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    text, found = _parse(path, data)
    if found.get(setting.key) == value:
        return
    document = tomlkit.parse(text)
    section: Any = document.get(setting.section)
    if value is None:
        del section[setting.name]
    else:
        if section is None:
            section = document[setting.section] = tomlkit.table()
        section[setting.name] = list(value) if isinstance(value, tuple) else value
    write_atomically(path.resolve(), tomlkit.dumps(document).encode())


@contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    """Hold the lock of the directory, so that no other command changes the file meanwhile."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _parse(path: Path, data: bytes) -> tuple[str, dict[str, Any]]:
    """Return the text of the file and its settings."""
    try:
        text = data.decode("utf-8")
        document = tomllib.loads(text)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidSettings(f"{path}, line {line}: it is not UTF-8. Save the file as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidSettings(f"{path}: it is not TOML: {error}") from None
    known = {setting.key: setting for setting in SETTINGS}
    sections = list(dict.fromkeys(setting.section for setting in SETTINGS))
    found: dict[str, Any] = {}
    for name, section in document.items():
        place = f"{path}{_line(text, name)}"
        if name not in sections:
            kind = "section" if isinstance(section, dict) else "key"
            choices = sections if isinstance(section, dict) else [*sections, *known]
            raise InvalidSettings(f"{place}: unknown {kind} {name!r}. {nearest(name, choices)}")
        if not isinstance(section, dict):
            raise InvalidSettings(f"{place}: {name!r} is a section. Write its keys below a line [{name}]")
        names = [each.name for each in SETTINGS if each.section == name]
        for key, value in section.items():
            source = f"{path}{_line(text, f'{name}.{key}')}"
            if key not in names:
                raise InvalidSettings(f"{source}: unknown key {key!r} in [{name}]. {nearest(key, names)}")
            setting = known[f"{name}.{key}"]
            found[setting.key] = setting.checked(value, source)
    return text, found


def _line(text: str, wanted: str) -> str:
    """Return ``, line N`` of a key or a section; empty if it is not found, as in an inline table."""
    header = ""
    for number, line in enumerate(text.splitlines(), 1):
        if (found := _HEADER.match(line)) is not None:
            header = _dotted(found[1])
            if header == wanted:
                return f", line {number}"
        elif (found := _ENTRY.match(line)) is not None:
            full = f"{header}.{_dotted(found[1])}".lstrip(".")
            if full == wanted or (not header and full.startswith(f"{wanted}.")):
                return f", line {number}"
    return _line(text, wanted.rpartition(".")[0]) if "." in wanted else ""


def _dotted(name: str) -> str:
    """Return a dotted key of TOML without quotes and spaces."""
    return ".".join(part.strip().strip("\"'") for part in name.split("."))
