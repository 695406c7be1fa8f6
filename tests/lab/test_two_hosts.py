"""``deploy/two_hosts`` between two hosts with sshd, offline, over a path with delay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.host import Host
from tests.lab.lab import Lab

ROOT = Path(__file__).resolve().parents[2]
SSHD = Path("/usr/sbin/sshd")

pytestmark = pytest.mark.lab_long

CONFIG = """
HostKey {directory}/host_key
AuthorizedKeysFile {directory}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 100
Subsystem sftp /bin/false
"""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Directories of our two wheels, and of those of all dependencies."""
    own, others = tmp_path_factory.mktemp("wheels"), tmp_path_factory.mktemp("wheelhouse")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    source = tmp_path_factory.mktemp("source") / "checkout"
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    source.mkdir()
    subprocess.run(["tar", "-x", "-C", str(source)], input=archive, check=True)
    for project in (source / "client", source):
        subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(own), str(project)], check=True)
    download = [*pip, "--retries", "1", "--timeout", "15", "wheel", "--no-deps", "--require-hashes"]
    download += ["-r", str(ROOT / "requirements/runtime.txt"), "-w", str(others)]
    done = subprocess.run(download, capture_output=True, text=True, check=False)
    if "no matching distribution" in done.stderr.lower():
        pytest.skip(f"no package registry can be reached: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    return own, others


def run_sshd(host: Host, directory: Path) -> None:
    config = directory / "sshd_config"
    config.write_text(CONFIG.format(directory=directory))
    host.popen([str(SSHD), "-D", "-f", str(config)], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    if not SSHD.exists():
        pytest.skip("there is no sshd on this machine: apt-get install openssh-server")
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # as its service does
    for name in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    return tmp_path


def test_two_hosts_lose_no_retried_call_and_clean_up(lab: Lab, keys: Path, wheels: tuple[Path, Path]) -> None:
    home = lab.router("cone")
    alice, bob = lab.host("alice", home.lan), lab.host("bob", lab.net)
    for host in (alice, bob):
        run_sshd(host, keys)
    home.impair(delay_ms=10)
    ssh = f"ssh -i {keys}/key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile={keys}/known"
    ssh += " -o LogLevel=ERROR -o ConnectionAttempts=20"
    command = [sys.executable, "-m", "deploy.two_hosts", f"root@{alice.address}", f"root@{bob.address}"]
    command += ["--wheels", str(wheels[0]), "--wheelhouse", str(wheels[1]), "--python", sys.executable, "--ssh", ssh]
    command += ["--network", "lan", "--calls", "100", "--megabytes", "4"]
    before = set(Path("/tmp").glob("fastn-two-hosts-*"))
    done = alice.run(command, timeout=300, cwd=ROOT)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 lost" in done.stdout
    assert done.stdout.count("intact") == 2
    assert set(Path("/tmp").glob("fastn-two-hosts-*")) == before


def test_missing_wheels_are_named_before_anything_is_done(lab: Lab, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.two_hosts", "nobody@192.0.2.1", "nobody@192.0.2.2"]
    done = lab.host("alice", lab.net).run([*command, "--wheels", str(tmp_path)], cwd=ROOT)
    assert (done.returncode, done.stderr) == (1, f"{tmp_path} has 0 wheels, not 2. Build them: make dist\n")
