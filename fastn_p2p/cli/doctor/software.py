"""Checks of Python and of the libraries: whether they are those that the daemon was tested with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from fastn_p2p_client.home import Home

from ...console.process_snapshot import read_process_file
from ..netcheck.check import OK, PROBLEM, WARNING, Check

TESTED: Final[Mapping[str, str]] = {
    "blake3": "1.0.11",
    "h11": "0.16.0",
    "httpcore": "1.0.9",
    "iroh": "1.2.0",
    "msgspec": "0.22.0",
    "prometheus-client": "0.26.0",
    "prompt_toolkit": "3.0.53",
    "PyNaCl": "1.6.2",
    "pyzmq": "27.3.0",
    "rich": "15.0.0",
    "segno": "1.6.6",
    "cryptography": "50.0.2",
    "spake2": "0.9",
    "tomlkit": "0.15.2",
    "typer": "0.28.0",
    "uvloop": "0.23.0",
}
"""Libraries that the distribution names, with the versions of ``requirements/runtime.txt``. A test compares both."""
_EXACT: Final = frozenset({"iroh"})
"""Libraries that are patched at run time."""
_TESTED_PYTHON: Final = (3, 11)


def check_software(home: Home, version_of: Callable[[str], str] = version) -> Iterator[Check]:
    """Return checks of the versions of Python, of the libraries, and of a daemon that runs.

    Args:
        version_of: returns the version of a distribution. Raises PackageNotFoundError.
    """
    python = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == _TESTED_PYTHON:
        yield Check(name="Python", state=OK, text=python)
    else:
        text = f"{python}; tested with {_TESTED_PYTHON[0]}.{_TESTED_PYTHON[1]}"
        yield Check(name="Python", state=WARNING, text=text, advice="if something fails, try the tested version")
    yield _check_libraries(version_of)
    snapshot = read_process_file(home)
    own = _found(version_of, "fastn-p2p")
    if snapshot is not None and snapshot.version not in ("", own):
        text = f"the daemon is version {snapshot.version}, this command {own}"
        yield Check(name="version", state=WARNING, text=text, advice="restart the daemon")
    else:
        yield Check(name="version", state=OK, text=f"fastn-p2p {own}")


def _check_libraries(version_of: Callable[[str], str]) -> Check:
    found = {name: _found(version_of, name) for name in TESTED}
    differ = {name: each for name, each in found.items() if each != TESTED[name]}
    if not differ:
        return Check(name="libraries", state=OK, text=f"all {len(TESTED)} as tested")
    text = ", ".join(f"{name} {each} (tested with {TESTED[name]})" for name, each in differ.items())
    wrong = any(name in _EXACT or not each for name, each in differ.items())
    advice = "install the version of requirements/runtime.txt" if wrong else "if something fails, try those versions"
    return Check(name="libraries", state=PROBLEM if wrong else WARNING, text=text, advice=advice)


def _found(version_of: Callable[[str], str], name: str) -> str:
    try:
        return version_of(name)
    except PackageNotFoundError:
        return "missing" if name not in TESTED else ""
