"""A machine that is reached over ssh, with a directory that is ours alone."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_INSTALL = """
set -eu
cd {directory}
{python} -m venv venv
venv/bin/python -m pip --disable-pip-version-check -q install {options} wheels/*.whl
"""
_START = """
cd {directory}
setsid nohup venv/bin/fastn-p2p daemon --network {network} < /dev/null > daemon.log 2>&1 &
echo $! > daemon.pid
for attempt in $(seq 150); do
    venv/bin/fastn-p2p health > health.txt 2>&1 && exit 0
    sleep 0.2
done
cat health.txt daemon.log >&2
exit 1
"""
# The daemon's own files name its processes. A pid that has come to somebody else in the meantime is left alone: it is
# no descendant of a process whose command line names our directory.
_KILL = """
import json, os, pathlib, signal, sys
here, name = pathlib.Path(sys.argv[1]), sys.argv[2]
pid = int((here / "daemon.pid").read_text())
if name != "daemon":
    processes = json.loads((here / "home/run/processes.json").read_text())["processes"]
    pid = next((each["pid"] for each in processes if each["name"] == name), 0)
def parents(pid):
    while pid > 1:
        yield pid
        pid = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
daemon = int((here / "daemon.pid").read_text())
command = pathlib.Path(f"/proc/{daemon}/cmdline").read_bytes()
if not pid or daemon not in parents(pid) or str(here).encode() not in command:
    sys.exit(f"no process {name}")
os.kill(pid, signal.SIGKILL)
"""
_REMOVE = """
cd {directory} || exit 0
if [ -e daemon.pid ] && tr '\\0' ' ' < /proc/$(cat daemon.pid)/cmdline 2> /dev/null | grep -qF {directory}/; then
    kill $(cat daemon.pid)
    for attempt in $(seq 150); do [ -e /proc/$(cat daemon.pid) ] || break; sleep 0.1; done
fi
cd / && rm -rf {directory}
"""


class HostFailed(Exception):
    """A command at a host has failed. Its text says where, and what it printed."""


class RemoteHost:
    """Machine that is reached over ssh. Leaving its context removes what was made there.

    Attributes:
        name: ssh's name of it, such as ``alice@one.example``.
        directory: absolute path of the directory there.
    """

    def __init__(self, ssh: Sequence[str], name: str, network: str) -> None:
        self._ssh = [*ssh, name]
        self.name = name
        self._network = network
        self.directory = ""

    def __enter__(self) -> RemoteHost:
        self.directory = self.run('mktemp -d "${TMPDIR:-/tmp}/fastn-two-hosts-XXXXXX"').strip()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(_REMOVE.format(directory=shlex.quote(self.directory)))

    def install(self, python: str, wheels: Sequence[Path], wheelhouse: Path | None) -> None:
        """Copy the wheels and install them: offline from the wheelhouse, else with what pip finds for itself."""
        self._copy("wheels", wheels)
        self._copy("", [Path(__file__).with_name("load.py")])
        options = ""
        if wheelhouse is not None:
            self._copy("wheelhouse", sorted(wheelhouse.glob("*.whl")))
            options = "--no-index --find-links wheelhouse"
        self.run(_INSTALL.format(directory=shlex.quote(self.directory), python=shlex.quote(python), options=options))

    def start(self) -> None:
        """Start the daemon and wait until it is well."""
        self.run(self._environment + _START.format(directory=shlex.quote(self.directory), network=self._network))

    def kill(self, process: str) -> None:
        """Send SIGKILL to a process of the daemon; ``daemon`` is all of it."""
        self.run(shlex.join(["python3", "-c", _KILL, self.directory, process]))

    def cli(self, *arguments: str) -> str:
        """Run one command of fastn-p2p and return what it prints."""
        return self.run(self.command_line(f"{self.directory}/venv/bin/fastn-p2p", *arguments))

    def load(self, *arguments: str) -> Any:
        """Run a part of ``load.py`` and return its result."""
        return json.loads(self.run(self.command_line(*self._load, *arguments)))

    def start_load(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a part of ``load.py``. It ends when its input does, and then prints its result."""
        return subprocess.Popen(
            [*self._ssh, self.command_line(*self._load, *arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def command_line(self, *command: str) -> str:
        """Return a shell command in the directory of this machine, with the daemon's environment."""
        return f"{self._environment} cd {shlex.quote(self.directory)} && exec {shlex.join(command)}"

    def run(self, script: str) -> str:
        """Run a shell script at the machine and return what it prints."""
        done = subprocess.run(
            [*self._ssh, script], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise HostFailed(f"{self.name}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    @property
    def _load(self) -> tuple[str, str]:
        return f"{self.directory}/venv/bin/python", f"{self.directory}/load.py"

    @property
    def _environment(self) -> str:
        home, hosts = (shlex.quote(f"{self.directory}/{each}") for each in ("home", "hosts"))
        return f"export FASTN_HOME={home} FASTN_HOST_DIRECTORY={hosts};"

    def _copy(self, folder: str, files: Sequence[Path]) -> None:
        """Send files through ssh into a folder: no scp or rsync is needed at either end."""
        target = shlex.quote(f"{self.directory}/{folder}")
        names = [argument for file in files for argument in ("-C", str(file.resolve().parent), file.name)]
        with subprocess.Popen(["tar", "-c", *names], stdout=subprocess.PIPE) as tar:
            command = [*self._ssh, f"mkdir -p {target} && tar -x -C {target}"]
            done = subprocess.run(command, stdin=tar.stdout, capture_output=True, text=True, check=False)
        if tar.returncode or done.returncode:
            raise HostFailed(f"{self.name}: could not copy {len(files)} files to {target}: {done.stderr}")
