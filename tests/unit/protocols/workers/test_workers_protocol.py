"""Config of bindings that workers serve: what it needs, and what is refused."""

from __future__ import annotations

import pathlib

import pytest

from fastn_p2p.protocols.workers import protocol
from fastn_p2p.protocols.workers.protocol import Workers
from fastn_p2p_client.keys import PublicKey
from fastn_p2p_client.protocol import BindingContext

KEY = PublicKey("i66fo538lfl5ombdf6tcdbrabp4hmp9asv7nrffuc2im13ct4q60")


def binding(tmp_path: pathlib.Path, config: Workers.Config) -> Workers:
    return Workers(BindingContext("bob", KEY, "Work", "default", tmp_path, config))


def test_it_needs_the_server_and_its_files_and_nothing_else() -> None:
    config = Workers.Config("nats://a:1,tls://b", "/etc/nats.creds", "/etc/ca.pem")
    lines = Workers.permissions(config).lines()
    assert lines == ("read /etc/nats.creds", "read /etc/ca.pem", "connect a:1", "connect b:4222")
    assert Workers.permissions(Workers.Config("nonsense")).lines() == ()


async def test_a_server_that_cannot_be_meant_is_refused(tmp_path: pathlib.Path) -> None:
    await binding(tmp_path, Workers.Config("nats://127.0.0.1:1")).on_check()
    with pytest.raises(ValueError, match="Write nats://HOST"):
        await binding(tmp_path, Workers.Config("nonsense://")).on_check()
    with pytest.raises(ValueError, match="no such file"):
        await binding(tmp_path, Workers.Config("nats://a", "/nowhere/file")).on_check()


async def test_without_nats_py_the_error_says_what_to_install(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install"):
        await binding(tmp_path, Workers.Config("nats://a")).on_check()
