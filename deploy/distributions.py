"""Build wheel and sdist of both distributions from the last commit, reproducibly, into ``dist/``.

The same commit gives the same bytes on any machine: time stamps are the commit's, sdists are packed again without what
depends on the machine, and wheels are built from these sdists with the pinned setuptools. It builds twice, in different
directories, and fails if that makes a difference.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]


def repack(sdist: Path, epoch: int) -> None:
    """Write the sdist's files again: sorted, all of ``epoch``, and owned by nobody in particular."""
    packed = io.BytesIO()
    with tarfile.open(sdist) as source, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as target:
        for member in sorted(source.getmembers(), key=lambda member: member.name):
            entry = tarfile.TarInfo(member.name)
            entry.size, entry.type, entry.mtime = member.size, member.type, epoch
            entry.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            target.addfile(entry, source.extractfile(member) if member.isfile() else None)
    with sdist.open("wb") as file, gzip.GzipFile("", "wb", mtime=epoch, fileobj=file) as compressed:
        compressed.write(packed.getvalue())


def build(uv: str, commit: str, work: Path) -> dict[str, bytes]:
    """Build the commit's distributions below ``work``. Return the content of each artifact by its name."""
    epoch = int(_output("git", "log", "-1", "--format=%ct", commit))
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch)
    source, out = work / "source", work / "out"
    source.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(archive)) as tree:
        tree.extractall(source, filter="data")
    pinned = ("--build-constraints", str(ROOT / "requirements/build.txt"), "--require-hashes")
    command = (uv, "build", "--quiet", "--no-config", *pinned, "--out-dir", str(out))
    for project in (source / "client", source):
        _run(*command, "--sdist", str(project))
    for sdist in out.glob("*.tar.gz"):
        repack(sdist, epoch)
        _run(*command, "--wheel", str(sdist))
    return {file.name: file.read_bytes() for file in sorted(out.iterdir()) if file.suffix in (".gz", ".whl")}


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}")


def main(uv: str, commit: str = "HEAD") -> None:
    os.umask(0o022)
    built: list[dict[str, bytes]] = []
    for _ in range(2):
        with tempfile.TemporaryDirectory(prefix="fastn-p2p-dist-") as work:
            built.append(build(uv, commit, Path(work)))
    first, second = built
    if first != second:
        different = sorted(name for name in first | second if first.get(name) != second.get(name))
        sys.exit(f"two builds of the same commit differ: {', '.join(different)}")
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir()
    for name, content in first.items():
        dist.joinpath(name).write_bytes(content)
        print(f"{hashlib.sha256(content).hexdigest()}  dist/{name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
