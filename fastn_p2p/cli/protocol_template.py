"""The package that ``fastn-p2p protocol new`` writes: small, complete and tested, to be changed into something else."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple

from fastn_p2p_client.errors import InvalidName
from fastn_p2p_client.names import check_name

from ..console.exit_codes import CommandLineError


class Names(NamedTuple):
    """What things are called in a package for one protocol."""

    protocol: str
    """``PhotoBox``"""
    module: str
    """``photo_box_protocol``: never that of a module of somebody else's"""
    distribution: str
    """``photo-box-protocol``"""


def names_for(protocol: str) -> Names:
    """
    Raises:
        CommandLineError: nothing can be called that.
    """
    try:
        check_name(protocol, "a protocol")
    except InvalidName as error:
        raise CommandLineError(f"{error}. For instance: PhotoBox") from None
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", protocol).lower().split()
    return Names(protocol[0].upper() + protocol[1:], "_".join([*words, "protocol"]), "-".join([*words, "protocol"]))


def write(names: Names, directory: Path) -> None:
    """Writes the package.

    Raises:
        CommandLineError: there is something already.
        OSError: it cannot be written.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CommandLineError(
            f"{directory} exists and is not empty: nothing was written. Choose another place with --dir"
        )
    for path, template in _FILES.items():
        file = directory / _filled(path, names)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as output:
                output.write(_filled(template, names))
        except OSError as error:
            raise OSError(f"cannot write {file}: {error.strerror}. Choose another place with --dir") from error


def _filled(template: str, names: Names) -> str:
    for key, value in names._asdict().items():
        template = template.replace(f"@{key}@", value)
    return template


_PYPROJECT: Final = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "@distribution@"
version = "0.1.0"
description = "The protocol @protocol@ for fastn-p2p"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["fastn-p2p-client", "msgspec"]

[project.optional-dependencies]
test = ["pytest"]

# By this the daemon finds it. What is installed where the daemon runs: `fastn-p2p protocol list`.
[project.entry-points."fastn_p2p.protocols"]
@protocol@ = "@module@:@protocol@"

[tool.setuptools]
py-modules = ["@module@"]
"""

_README: Final = """\
# @distribution@

The protocol `@protocol@` for fastn-p2p: keeps short texts that peers leave, and
sends them to whoever reads.

Install it into the environment that the daemon runs in (`fastn-p2p protocol new` has printed the command), and give it
to an identity. The daemon finds it without a restart:

```sh
pip install -e .
fastn-p2p add-protocol alice --protocol @protocol@ --config '{"max_length": 280}'
```

A peer who is in alice's address book leaves a text, and reads all of them:

```sh
echo '{"text": "hello"}' | fastn-p2p call alice @protocol@
fastn-p2p stream alice @protocol@ < /dev/null
```

Its tests need no daemon: `pip install .[test]`, then `pytest`.
"""

_MODULE: Final = '''\
"""@protocol@: keeps short texts that peers leave, and sends them to whoever reads."""

from __future__ import annotations

from typing import Annotated

import msgspec

from fastn_p2p_client import ApplicationError, Session
from fastn_p2p_client.protocol import Peer, Protocol, request, stream

__all__ = ["@protocol@", "Leave", "Left"]


class Leave(msgspec.Struct):
    """What a peer asks for. A request that does not fit never gets here."""

    text: str


class Left(msgspec.Struct):
    """The reply."""

    number: int


class @protocol@(Protocol):
    """Keeps short texts that peers leave, and sends them to whoever reads.

    Raises:
        ApplicationError: ``TooLong``, with ``{"max_length"}``.
    """

    class Config(msgspec.Struct, forbid_unknown_fields=True):
        max_length: Annotated[int, msgspec.Meta(ge=1, description="characters in the longest text")] = 280

    config: Config

    async def on_create(self) -> None:
        """Once, when an identity is given the protocol: the workspace is empty."""
        (self.context.workspace / "texts").touch()

    async def on_activate(self) -> None:
        """Each time before requests come."""
        self.texts = (self.context.workspace / "texts").read_text().splitlines()

    @request
    async def leave(self, request: Leave, peer: Peer) -> Left:
        """One text, which becomes one line."""
        if len(request.text) > self.config.max_length:
            data = {"max_length": self.config.max_length}
            raise ApplicationError("TooLong", f"at most {self.config.max_length} characters", data)
        line = f"{peer}: {' '.join(request.text.split())}"
        with (self.context.workspace / "texts").open("a") as file:
            file.write(line + "\\n")
        self.texts.append(line)
        return Left(len(self.texts))

    @stream
    async def read(self, session: Session, first: int | None) -> None:
        """All texts from number ``first`` on, one in each line."""
        for line in self.texts[max(0, (first or 1) - 1) :]:
            await session.write(line.encode() + b"\\n")
'''

_TEST: Final = '''\
"""@protocol@ as its callers see it, without a daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fastn_p2p_client import ApplicationError, BadRequest
from fastn_p2p_client.errors import InvalidConfig
from fastn_p2p_client.testing import serve
from @module@ import @protocol@, Left


def test_texts_are_kept_and_read(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serve(@protocol@, workspace=tmp_path) as contact:
            assert await contact.call({"text": "one"}, returns=Left) == Left(1)
            assert await contact.call({"text": "two\\nlines"}, returns=Left) == Left(2)
        async with serve(@protocol@, workspace=tmp_path) as contact:  # after a restart
            async with await contact.connect(2) as session:
                received = b"".join([chunk async for chunk in session])
            assert received.decode().endswith(": two lines\\n")

    asyncio.run(scenario())


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serve(@protocol@, {"max_length": 3}, workspace=tmp_path) as contact:
            with pytest.raises(ApplicationError, match="TooLong"):
                await contact.call({"text": "four"})
            with pytest.raises(BadRequest, match="text"):
                await contact.call({"txt": "typo"})
            assert await contact.call({"text": "two"}) == {"number": 1}

    asyncio.run(scenario())


def test_a_config_that_is_wrong_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serve(@protocol@, {"max_length": 0}, workspace=tmp_path):
            pass

    with pytest.raises(InvalidConfig, match="max_length"):
        asyncio.run(scenario())
'''

_FILES: Final = {
    "pyproject.toml": _PYPROJECT,
    "README.md": _README,
    "@module@.py": _MODULE,
    "tests/test_@module@.py": _TEST,
    ".gitignore": "__pycache__/\n*.egg-info/\nbuild/\ndist/\n.pytest_cache/\n.venv/\n",
}
