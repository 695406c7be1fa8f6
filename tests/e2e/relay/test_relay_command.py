"""``fastn-p2p relay`` as its operator meets it: what it prints, reloads, refuses, and leaves when it stops."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import pytest
from nacl.signing import SigningKey

from fastn_p2p.cli import main
from tests.support.certificates import make_certificate
from tests.support.relay_clients import DEADLINE, RelayClient, signed_packet, z32

LOOPBACK = ("--listen", "127.0.0.1:0", "--qad-port", "0")


class RelayProcess:
    """The command, and the addresses that it has printed."""

    def __init__(self, process: asyncio.subprocess.Process, printed: list[str]) -> None:
        self.process = process
        self.printed = printed
        self.addresses = {line.split()[0]: line.split()[-1] for line in printed}

    @classmethod
    async def start(cls, *arguments: str, lines: int = 2) -> RelayProcess:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "fastn_p2p", "relay", *LOOPBACK, *arguments), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        async with asyncio.timeout(DEADLINE * 2):
            return cls(process, [(await process.stdout.readline()).decode().rstrip() for _ in range(lines)])

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE):
            return await self.process.wait()


async def test_it_starts_reloads_stops_and_keeps_its_directory(tmp_path: Path) -> None:
    alice, bob = SigningKey.generate(), SigningKey.generate()
    allow, file = tmp_path / "allow", tmp_path / "directory.sqlite"
    allow.write_text(bytes(alice.verify_key).hex())
    options = ("--directory-file", str(file), "--allow", str(allow), "--metrics", "127.0.0.1:0")
    relay = await RelayProcess.start(*options, lines=3)
    async with aiohttp.ClientSession() as http, asyncio.timeout(DEADLINE * 3):
        url = f"{relay.addresses['directory']}/{z32(alice)}"
        async with http.put(url, data=signed_packet(alice, 1)) as response:
            assert response.status == 204
        client = await RelayClient.connect(relay.addresses["relay"], alice)
        async with http.get(relay.addresses["metrics"]) as response:
            text = await response.text()
            assert "fastn_p2p_relay_clients 1.0" in text
            assert "fastn_p2p_relay_packets_published_total 1.0" in text
            assert "process_resident_memory_bytes" in text
        allow.write_text(bytes(bob.verify_key).hex())
        relay.process.send_signal(signal.SIGHUP)
        assert await client.closed() == 1008
        await client.abort()
        client = await RelayClient.connect(relay.addresses["relay"], bob)
        stopping = asyncio.create_task(relay.stop())
        assert (await client.receive())[0] == 12
        assert await client.closed() == 1001
        await client.abort()
        assert await stopping == 0
        assert not file.with_name("directory.sqlite-wal").exists()

        relay = await RelayProcess.start(*options, lines=3)
        async with http.get(f"{relay.addresses['directory']}/{z32(alice)}") as response:
            assert await response.read() == signed_packet(alice, 1)
        assert await relay.stop() == 0


async def test_all_addresses_are_served_in_both_families(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    tls = ("--tls-cert", str(certificate), "--tls-key", str(key), "--qad-port", "0", "--listen", "*:0")
    relay = await RelayProcess.start(*tls, lines=6)
    services = {*relay.printed}
    assert await relay.stop() == 0
    hosts = {line.rpartition("//")[2].rpartition(":")[0] for line in services}
    assert hosts == {"0.0.0.0", "[::]"}
    assert sum(line.startswith("address discovery udp://") for line in services) == 2


def test_an_address_in_use_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert main(["relay", "--listen", address, "--qad-port", "0"]) == 2
    assert f"--listen: cannot listen on {address}: Address already in use. Choose" in capsys.readouterr().err


def test_files_that_cannot_be_used_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("alice\n")
    assert main(["relay", *LOOPBACK, "--allow", str(wrong)]) == 2
    assert f"--allow: {wrong}, line 1: 'alice' is no key. Write an ID52 or an endpoint id" in capsys.readouterr().err
    assert main(["relay", *LOOPBACK, "--tls-cert", str(wrong)]) == 2
    assert "--tls-cert and --tls-key belong together" in capsys.readouterr().err
    assert main(["relay", *LOOPBACK, "--tls-cert", str(wrong), "--tls-key", str(wrong)]) == 2
    assert "no certificate and its key" in capsys.readouterr().err
    assert main(["relay", *LOOPBACK, "--directory-file", str(wrong)]) == 74
    assert str(wrong) in capsys.readouterr().err


def test_without_the_extra_it_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [each for each in sys.modules if each.startswith(("fastn_p2p.relay", "aiohttp"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert main(["relay"]) == 2
    assert "pip install 'fastn-p2p[relay]'" in capsys.readouterr().err
