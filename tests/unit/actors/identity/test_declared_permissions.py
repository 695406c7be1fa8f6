"""Code of bindings: those that were added before their file had it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest

from fastn_p2p_actors import installed_protocols
from fastn_p2p_actors.identity.declared_permissions import is_builtin_binding
from fastn_p2p_actors.installed_protocols import GROUP
from fastn_p2p_actors.storage.identity_store import BindingFile

Searches = list[str]


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> Searches:
    """Note each search for Echo, which comes with the daemon, and Sum, of which the first of two packages counts."""
    made: Searches = []
    found = [("Echo", "fastn_p2p.protocols.echo:Echo"), ("Sum", "sums:Sum"), ("Sum", "fastn_p2p.protocols.sums:Sum")]

    def search(**_: str) -> list[EntryPoint]:
        made.append("")
        return [EntryPoint(name, value, GROUP) for name, value in found]

    monkeypatch.setattr(installed_protocols, "entry_points", search)
    monkeypatch.setattr(installed_protocols, "_index", (0.0, {}))
    return made


def binding(protocol: str, code: str = "") -> BindingFile:
    return BindingFile(protocol=protocol, instance="default", allow=(), code=code)


def test_packages_are_searched_once_for_many_bindings(searches: Searches) -> None:
    bindings = [binding(each) for each in ("Echo", "Sum", "Other") for _ in range(1000)]
    assert [each.protocol for each in bindings if is_builtin_binding(each)] == ["Echo"] * 1000
    assert len(searches) < 100


def test_packages_are_not_searched_for_a_binding_with_code(searches: Searches) -> None:
    assert is_builtin_binding(binding("Any", "fastn_p2p.protocols.echo:Echo"))
    assert not is_builtin_binding(binding("Echo", "elsewhere:Echo"))
    assert not searches


def test_new_package_is_found_a_second_later(searches: Searches, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(installed_protocols, "time", SimpleNamespace(monotonic=lambda: now))
    assert not is_builtin_binding(binding("Other"))
    added: Callable[..., Any] = lambda **_: [EntryPoint("Other", "fastn_p2p.protocols.other:Other", GROUP)]  # noqa: E731
    monkeypatch.setattr(installed_protocols, "entry_points", added)
    now += 1.0
    assert is_builtin_binding(binding("Other"))
