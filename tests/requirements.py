"""Hashes in ``requirements/``: each pin is followed by those of every artifact of its version, sdist and wheels.

``make requirements`` writes them. It keeps comments, order and pins, and takes hashes from the index that uv is
configured with, so that pip installs nothing but what the index had then. This module needs the standard library only:
it has to run when the development environment cannot be installed because a pin lacks its hashes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["FOLDER", "Pin", "pins"]

FOLDER: Final = Path(__file__).resolve().parents[1] / "requirements"

_PIN: Final = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?P<extras>\[[^\]]*\])?==(?P<version>[^\s;\\]+)")


class Pin(NamedTuple):
    """Version of a package, as a requirements file names it."""

    name: str
    version: str
    text: str
    """The pin and its hashes, in the form of a requirements file."""


def pins(file: Path) -> list[Pin]:
    """Return the pins of one requirements file, in its order."""
    texts = re.split(r"(?<!\\)\n", file.read_text())  # a backslash continues the line
    found = ((_PIN.match(text), text) for text in texts)
    return [Pin(match["name"], match["version"], text) for match, text in found if match]


def renew(file: Path, hashes: dict[str, list[str]]) -> bool:
    """Write the hashes below the file's pins. Return whether that changed the file."""
    before = file.read_text()
    kept = (line for line in before.splitlines() if not line.lstrip().startswith("--hash="))
    lines: list[str] = []
    for line in kept:
        match = _PIN.match(line)
        pin = line.rstrip("\\").rstrip()
        lines.append(" \\\n    ".join([pin, *hashes[_normalized(match["name"])]]) if match else line)
    after = "\n".join(lines) + "\n"
    file.write_text(after)
    return after != before


def hashes_from_index(uv: str, wanted: set[str]) -> dict[str, list[str]]:
    """Return the options with all hashes of each pin, by the normalized name of its package."""
    options = ("--no-deps", "--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", "--universal")
    command = [uv, "pip", "compile", "--quiet", "--no-config", "--refresh", *options, "-"]
    done = subprocess.run(command, input="\n".join(sorted(wanted)), stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit("uv found no hashes: see above")
    found: dict[str, list[str]] = {}
    for text in done.stdout.replace("\\\n", " ").splitlines():
        match = _PIN.match(text)
        if match is not None:
            found[_normalized(match["name"])] = re.findall(r"--hash=\S+", text)
    return found


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def main(uv: str) -> None:
    files = sorted(FOLDER.glob("*.txt"))
    wanted = {f"{pin.name}=={pin.version}" for file in files for pin in pins(file)}
    hashes = hashes_from_index(uv, wanted)
    for file in files:
        if renew(file, hashes):
            print(f"renewed {file.relative_to(FOLDER.parent)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
