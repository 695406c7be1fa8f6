"""Bindings of programs are stopped, started and reloaded like those of the daemon."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fastn_p2p_client import ProtocolNotFound
from tests.support.daemons import Daemon, eventually
from tests.support.two_daemons import binding_of

PROGRAM = """
import asyncio, msgspec
from fastn_p2p_client import serve_all
from fastn_p2p_client.protocol import Protocol, request

class Clock(Protocol):
    public = True

    class Config(msgspec.Struct):
        word: str = "tick"

    @request
    async def say(self, request: None) -> str:
        return self.config.word

server = serve_all()
server.protocol(Clock, "Clock")
asyncio.run(server.serve())
"""


def test_a_program_s_binding_lives(daemon: Daemon) -> None:
    alice = daemon.identity("alice", echo=False)
    assert daemon.cli("add-protocol", "alice", "--protocol", "Clock", "--program").returncode == 0
    config = daemon.home.identities / "alice/protocols/Clock/default/config.json"

    def time_of() -> object:
        with daemon.client() as client:
            return client.call("alice", alice, "Clock")

    def is_served() -> bool:
        return binding_of(daemon, "alice", "Clock").state == "serving"

    program = subprocess.Popen([sys.executable, "-c", PROGRAM], env=daemon.env)
    try:
        eventually(is_served, "it is served")
        assert time_of() == "tick"
        (binding,) = [each for each in daemon.status().identities[0].bindings if each.protocol == "Clock"]
        assert (binding.state, binding.programs) == ("serving", 1)
        assert "programs" in daemon.shown_status()
        assert daemon.cli("stop", "alice", "Clock").stderr.endswith("State: stopped.\n")
        with pytest.raises(ProtocolNotFound):
            time_of()
        assert daemon.cli("start", "alice", "Clock").returncode == 0
        eventually(is_served, "it is served again")
        content = json.loads(config.read_bytes())
        config.write_text(json.dumps({**content, "config": {"word": "tock"}}))
        assert daemon.cli("reload", "alice", "Clock").returncode == 0
        eventually(lambda: time_of() == "tock", "it has the new config")
    finally:
        program.terminate()
        program.wait(60)
