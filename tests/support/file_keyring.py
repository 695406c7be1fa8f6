"""Keyring of the desktop in a file, which the Python package ``keyring`` finds through its own configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

BACKEND: Final = """
import json, pathlib
from keyring.backend import KeyringBackend

PATH = pathlib.Path(__file__).with_name("keys.json")

class FileKeyring(KeyringBackend):
    priority = 1

    def _write(self, keys):
        PATH.write_text(json.dumps(keys))

    def _read(self):
        return json.loads(PATH.read_text()) if PATH.exists() else {}

    def get_password(self, service, user):
        return self._read().get(f"{service}|{user}")

    def set_password(self, service, user, password):
        self._write({**self._read(), f"{service}|{user}": password})

    def delete_password(self, service, user):
        self._write({name: key for name, key in self._read().items() if name != f"{service}|{user}"})
"""


@contextmanager
def file_keyring(folder: Path, environment: MutableMapping[str, str]) -> Iterator[Callable[[], dict[str, str]]]:
    """Configure the keyring in an environment. Return a function that returns its content."""
    backend, config = folder / "backend", folder / "config" / "python_keyring"
    backend.mkdir()
    config.mkdir(parents=True)
    (backend / "fastn_file_keyring.py").write_text(BACKEND)
    (config / "keyringrc.cfg").write_text(
        f"[backend]\ndefault-keyring=fastn_file_keyring.FileKeyring\nkeyring-path={backend}\n"
    )
    before = environment.get("XDG_CONFIG_HOME")
    environment["XDG_CONFIG_HOME"] = str(folder / "config")
    path = backend / "keys.json"
    try:
        yield lambda: json.loads(path.read_text()) if path.exists() else {}
    finally:
        if before is None:
            del environment["XDG_CONFIG_HOME"]
        else:
            environment["XDG_CONFIG_HOME"] = before
