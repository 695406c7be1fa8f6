"""Modules that others import and that are rarely used: they are executed at the first use of one of their names.

Most of a command's time is imports. ``import asyncio`` alone imports TLS, which takes a tenth of that time, and which
no connection to the daemon needs. In the daemon's processes they took 5 MB. ``importlib.util.LazyLoader`` does not
help: it executes a module at the second ``import`` statement that names it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from threading import RLock
from types import ModuleType
from typing import Any, Final

DEFERRED: Final = frozenset(
    {
        "asyncio.sslproto",
        "asyncio.staggered",
        "bz2",
        "csv",
        "email",
        "importlib.metadata._adapters",
        "importlib.resources",
        "ipaddress",
        "linecache",
        "locale",
        "lzma",
        "msgspec.inspect",
        "msgspec.toml",
        "msgspec.yaml",
        "ntpath",
        "ssl",
        "tarfile",
        "textwrap",
        "tokenize",
        "zipfile",
    }
)
"""Their importers on the way of every command and of the daemon use none of their names while they are imported
themselves."""
_HIDDEN: Final = {"msgspec": "typing_extensions"}
"""Modules that another one only imports for Pythons older than ours, by that one."""

_lock: Final = RLock()


class DeferredModule(ModuleType):
    """A module whose code has not run."""

    def __getattr__(self, name: str) -> Any:
        with _lock:  # another thread may be executing the module
            loader = self.__dict__.pop("_loader", None)
            if loader is not None:
                loader.exec_module(self)
                self.__class__ = ModuleType  # type: ignore[assignment]
        return ModuleType.__getattribute__(self, name)


class _FirstLoader:
    """Loader in front of a module's own one, which the module has from then on."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader


class _Loader(_FirstLoader):
    """Loader that leaves the execution to the first use."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        module.__dict__["_loader"] = self._loader
        module.__class__ = DeferredModule


class _HidingLoader(_FirstLoader):
    """Loader of a module that does not find one of its imports, and goes on without it."""

    def __init__(self, loader: Any, hidden: str) -> None:
        super().__init__(loader)
        self._hidden = hidden

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        modules: dict[str, Any] = sys.modules
        modules.setdefault(self._hidden, None)  # an import of it fails
        try:
            self._loader.exec_module(module)
        finally:
            if modules[self._hidden] is None:
                del modules[self._hidden]


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return where the module is, with the loader that defers it, or hides an import; None for all others."""
        if name not in DEFERRED and name not in _HIDDEN:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None:
            loader: Any = _Loader(spec.loader) if name in DEFERRED else _HidingLoader(spec.loader, _HIDDEN[name])
            spec.loader = loader
        return spec


def defer_modules() -> None:
    """Defer ``DEFERRED`` in this process, except those that are imported already."""
    sys.meta_path.insert(0, _Finder)
