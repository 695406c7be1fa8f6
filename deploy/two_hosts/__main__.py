"""``python3 -m deploy.two_hosts ALICE BOB``: install a build on two machines, run it between them, print a report."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from .remote_host import HostFailed, RemoteHost

PROCESSES = ("network", "gateway", "vault", "identity-{}")
"""Processes that are killed at each host, by name; then the whole daemon is."""
SETTLED = 2.0
"""Seconds between two kills: a restarted process works again, so that each kill meets calls in flight."""


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="two_hosts", description="Try a build on two machines over ssh.")
    parser.add_argument("alice", metavar="ALICE", help="ssh's name of the machine that calls: USER@HOST")
    parser.add_argument("bob", metavar="BOB", help="ssh's name of the machine that serves")
    parser.add_argument("--wheels", type=Path, default=Path("dist"), help="directory of both wheels [default: dist]")
    parser.add_argument("--wheelhouse", type=Path, help="directory of all dependencies' wheels: install offline")
    parser.add_argument("--python", default="python3", help="interpreter at both machines [default: python3]")
    parser.add_argument("--ssh", default="ssh -o BatchMode=yes -o ConnectTimeout=15", help="command for a connection")
    parser.add_argument("--network", default="internet", choices=["lan", "internet"], help="mode of both daemons")
    parser.add_argument("--calls", type=int, default=1000, help="calls in a row, and again at once [default: 1000]")
    parser.add_argument("--megabytes", type=int, default=64, help="size of the stream and of the file [default: 64]")
    parser.add_argument("--rounds", type=int, default=1, help="times that everything is killed [default: 1]")
    return parser.parse_args()


@contextmanager
def two_daemons(options: argparse.Namespace) -> Iterator[tuple[RemoteHost, RemoteHost]]:
    """Install, start and introduce the daemons; remove all of it at the end."""
    wheels = sorted(options.wheels.glob("*.whl"))
    if len(wheels) != 2:
        raise HostFailed(f"{options.wheels} has {len(wheels)} wheels, not 2. Build them: make dist")
    with ExitStack() as made:
        hosts = []
        for name in (options.alice, options.bob):
            hosts.append(host := made.enter_context(RemoteHost(shlex.split(options.ssh), name, options.network)))
            print(f"installing at {name}", flush=True)
            host.install(options.python, wheels, options.wheelhouse)
            host.start()
        alice, bob = hosts
        for host, name in ((alice, "alice"), (bob, "bob")):
            host.cli("create-identity", name)
            host.cli("identity-online", name)
        for host, other, name in ((alice, bob, "bob"), (bob, alice, "alice")):
            host.cli("peer", "add", other.cli("ticket").strip(), "--name", name)
        bob.cli("add-protocol", "bob", "--protocol", "Echo", "--allow", "peers")
        yield alice, bob


def measure_files(alice: RemoteHost, bob: RemoteHost, megabytes: int) -> tuple[float, bool]:
    """Return the seconds of a transfer, and whether all bytes arrived."""
    shared = f"{bob.directory}/shared"
    bob.run(f"mkdir {shared} && head -c {megabytes}M /dev/urandom > {shared}/file")
    config = json.dumps({"root": shared})
    bob.cli("add-protocol", "bob", "--protocol", "FileTransfer", "--config", config, "--allow", "peers", "--yes")
    began = time.monotonic()
    alice.cli("files", "get", "bob", "file", "--to", f"{alice.directory}/got")
    seconds = time.monotonic() - began
    digests = [
        host.run(f"sha256sum < {path}/file") for host, path in ((bob, shared), (alice, f"{alice.directory}/got"))
    ]
    return seconds, digests[0] == digests[1]


def kill_everything(alice: RemoteHost, bob: RemoteHost, rounds: int) -> int:
    """Kill each process, then each daemon, one after the other; return the number of kills."""
    kills = 0
    for _ in range(rounds):
        for host, name in ((bob, "bob"), (alice, "alice")):
            for process in PROCESSES:
                host.kill(process.format(name))
                kills += 1
                time.sleep(SETTLED)
            host.kill("daemon")
            kills += 1
            host.start()
            time.sleep(SETTLED)
    return kills


def run(options: argparse.Namespace) -> bool:
    """Run everything and print the report. Return whether nothing was lost or damaged."""
    with two_daemons(options) as (alice, bob):
        server = bob.start_load("serve", "bob")
        print("calls", flush=True)
        called = alice.load("calls", "bob", str(options.calls))
        print("streams", flush=True)
        stream = alice.load("streams", "bob", str(options.megabytes))
        print("files", flush=True)
        file_seconds, file_intact = measure_files(alice, bob, options.megabytes)
        print("kills", flush=True)
        retrying = alice.start_load("retries", "bob")
        time.sleep(SETTLED)
        kills = kill_everything(alice, bob, options.rounds)
        retried = json.loads(end(retrying))
        end(server)
    lost = sum(retried["lost"].values())
    print(f"""
calls               {called["calls"]:,}, none failed
one after the other p50 {called["p50"] * 1e3:.1f} ms, p99 {called["p99"] * 1e3:.1f} ms
16 in flight        {called["rate"]:,.0f} calls/s
stream              {options.megabytes / stream["seconds"]:.1f} MiB/s, {"intact" if stream["intact"] else "DAMAGED"}
file                {options.megabytes / file_seconds:.1f} MiB/s, {"intact" if file_intact else "DAMAGED"}
kills               {kills}
retry=True          {retried["calls"]:,} calls done, {lost} lost{": " + str(retried["lost"]) if lost else ""}
longest call        {retried["longest"]:.1f} s""")
    return not lost and bool(stream["intact"]) and file_intact


def end(program: subprocess.Popen[str]) -> str:
    """Close a program's input and return what it prints then."""
    output = program.communicate(timeout=300)[0]
    if program.returncode:
        raise HostFailed(f"load.py ended with exit code {program.returncode}")
    return output


if __name__ == "__main__":
    try:
        sys.exit(not run(arguments()))
    except HostFailed as error:
        sys.exit(str(error))
