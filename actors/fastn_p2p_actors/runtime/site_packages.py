"""Site directories of a running process, kept up to date when packages are installed, replaced or removed.

An interpreter reads the ``.pth`` files of its site directories once, when it starts. An editable install is such a
file: a line with a directory, or a line that imports a module which adds a finder to ``sys.meta_path``. A process of
the daemon is a fork of a server that started long ago. So ``refresh`` does what a new interpreter would do: it undoes
the effect of removed or changed files, and applies new ones. If nothing changed, it costs a look at the names in the
site directories, about 0.2 ms.

Imported modules stay, unless ``unload_replaced`` finds that their files have changed. The daemon's own packages are
never forgotten: its parts must fit together, and a new version needs a new daemon.
"""

from __future__ import annotations

import importlib
import os
import re
import site
import sys
from pathlib import Path
from types import ModuleType
from typing import Final, NamedTuple

_OURS: Final = ("fastn_p2p", "fastn_p2p_actors", "fastn_p2p_client", "fastn_p2p_supervisor")
_IMPORTS: Final = re.compile(r"^import[ \t]+([\w.]+)", re.MULTILINE)


class _PathFile(NamedTuple):
    """A ``.pth`` file, and the mark that shows a change of it."""

    mark: tuple[int, int, int]
    text: str

    def directories(self, folder: Path) -> list[str]:
        """Return the directories that it adds to ``sys.path``, as ``site`` writes them."""
        lines = [line.strip() for line in self.text.splitlines()]
        return [os.path.abspath(folder / line) for line in lines if line and not line.startswith(("#", "import"))]  # noqa: PTH100

    def modules(self) -> list[str]:
        """Return the modules that its lines import."""
        return _IMPORTS.findall(self.text)


def _folders() -> list[Path]:
    """Return the site directories that this interpreter uses."""
    if sys.flags.no_site:
        return []
    folders = [*site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        folders.append(site.getusersitepackages())
    return [Path(folder) for folder in dict.fromkeys(folders)]


def _changed_at(folder: Path) -> int:
    """Return the time of the last change of the directory's entries; 0 if it does not exist."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _path_files(known: dict[Path, _PathFile]) -> dict[Path, _PathFile]:
    """Return every present ``.pth`` file. Unchanged ones are not read again."""
    found: dict[Path, _PathFile] = {}
    for folder in _folders():
        try:
            paths = [Path(entry.path) for entry in os.scandir(folder) if entry.name.endswith(".pth")]
        except OSError:
            continue
        for path in sorted(paths):
            try:
                state = path.stat()
                mark = (state.st_mtime_ns, state.st_size, state.st_ino)
                before = known.get(path)
                same = before is not None and before.mark == mark
                found[path] = before if same and before else _PathFile(mark, path.read_text(errors="replace"))
            except OSError:
                continue
    return found


_applied: dict[Path, _PathFile] = _path_files({})
"""Files that this interpreter has applied; at first those present when it, or its fork server, started."""
_present: dict[Path, int] = {folder: _changed_at(folder) for folder in _folders()}
"""Time of the last change of entries, by site directory."""
_imported: dict[str, dict[str, tuple[int, int] | None]] = {}
"""Files of a protocol's package at their import (time of change, size), by its top-level module."""


def refresh() -> bool:
    """Bring ``sys.path``, ``sys.meta_path`` and the caches of the import system up to date. Return whether they were
    not."""
    now = _path_files(_applied)
    present = {folder: _changed_at(folder) for folder in _folders()}
    gone = {path: file for path, file in _applied.items() if now.get(path) != file}
    new = {path: file for path, file in now.items() if _applied.get(path) != file}
    if not gone and not new and present == _present:
        return False
    kept = {folder for path, file in now.items() if path not in new for folder in file.directories(path.parent)}
    for path, file in gone.items():
        _undo(path, file, kept)
    for folder, changed in present.items():
        if changed and str(folder) not in sys.path:
            sys.path.append(str(folder))  # the directory is created with the first package of a user
    for path in new:
        site.addpackage(str(path.parent), path.name, None)
    _applied.clear()
    _applied.update(now)
    _present.clear()
    _present.update(present)
    importlib.invalidate_caches()
    return True


def _undo(path: Path, file: _PathFile, kept: set[str]) -> None:
    """Undo the effect of the file on this interpreter."""
    for directory in file.directories(path.parent):
        if directory not in kept and directory in sys.path:
            sys.path.remove(directory)
    for name in file.modules():
        module = sys.modules.get(name)
        if module is None or not _is_in(module, path.parent):
            continue  # for instance a module of the standard library
        sys.meta_path[:] = [each for each in sys.meta_path if getattr(each, "__module__", "") != name]
        sys.path_hooks[:] = [each for each in sys.path_hooks if getattr(each, "__module__", "") != name]
        placeholder = getattr(module, "PATH_PLACEHOLDER", None)  # setuptools adds it to sys.path
        if placeholder in sys.path:
            sys.path.remove(placeholder)
        del sys.modules[name]


def _is_in(module: ModuleType, folder: Path) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and Path(str(file)).parent == folder


# ── imported protocols ───────────────────────────────────────────────────────────────────────────


def note_imported(module: str) -> None:
    """Remember the present files of a protocol's package, because its code was imported from them."""
    top = module.partition(".")[0]
    if top in _OURS:
        return
    noted = _imported.setdefault(top, {})
    for file in _files_of(top):
        noted.setdefault(file, _mark(file))


def unload_replaced(module: str) -> None:
    """Import a protocol's package anew next time, if its files have changed or are elsewhere now.

    Objects of the old modules keep their old code.
    """
    top = module.partition(".")[0]
    if top not in _imported:
        return
    changed = any(_mark(file) != mark for file, mark in _imported[top].items())
    if not changed and _origin(top) == getattr(sys.modules.get(top), "__file__", None):
        return
    del _imported[top]
    for name in [name for name in sys.modules if name == top or name.startswith(f"{top}.")]:
        del sys.modules[name]
    importlib.invalidate_caches()


def _origin(top: str) -> str | None:
    """Return the file that the module would be imported from now."""
    for finder in sys.meta_path:
        spec = finder.find_spec(top, None)
        if spec is not None:
            return spec.origin
    return None


def _files_of(top: str) -> list[str]:
    modules = [module for name, module in sys.modules.items() if name == top or name.startswith(f"{top}.")]
    return [file for file in (getattr(module, "__file__", None) for module in modules) if file]


def _mark(file: str) -> tuple[int, int] | None:
    try:
        state = os.stat(file)  # noqa: PTH116
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size
