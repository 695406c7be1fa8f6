"""Package that ``fastn-p2p protocol new`` writes: a small, complete and tested protocol to start from.

The files are in ``templates``. ``@protocol@``, ``@module@`` and ``@distribution@`` in them are replaced by ``Names``.
"""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path
from typing import Final, NamedTuple

from fastn_p2p_client.errors import InvalidName
from fastn_p2p_client.names import check_name

from ..console.exit_codes import CommandLineError


class Names(NamedTuple):
    """Names in the package of one protocol."""

    protocol: str
    """``PhotoBox``"""
    module: str
    """``photo_box_protocol``: the suffix keeps it apart from other modules"""
    distribution: str
    """``photo-box-protocol``"""


def names_for(protocol: str) -> Names:
    """Return the names in the package of a protocol.

    Raises:
        CommandLineError: no protocol can have this name.
    """
    try:
        check_name(protocol, "a protocol")
    except InvalidName as error:
        raise CommandLineError(f"{error}. Example: PhotoBox") from None
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", protocol).lower().split()
    return Names(protocol[0].upper() + protocol[1:], "_".join([*words, "protocol"]), "-".join([*words, "protocol"]))


def write(names: Names, directory: Path) -> None:
    """Write the package.

    Raises:
        CommandLineError: the directory exists and is not empty.
        OSError: a file cannot be written.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise CommandLineError(f"{directory} already exists and is not empty. Choose another directory with --dir")
    templates = resources.files("fastn_p2p.cli") / "templates"
    for path, template in _FILES.items():
        file = directory / _filled(path, names)
        text = _filled((templates / template).read_text(encoding="utf-8"), names)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x", encoding="utf-8") as output:
                output.write(text)
        except OSError as error:
            raise OSError(f"cannot write {file}: {error.strerror}. Choose another directory with --dir") from error


def _filled(template: str, names: Names) -> str:
    """Return a template with its placeholders replaced."""
    for key, value in names._asdict().items():
        template = template.replace(f"@{key}@", value)
    return template


_FILES: Final = {
    "pyproject.toml": "pyproject.toml.txt",
    "README.md": "README.md.txt",
    "@module@.py": "protocol.py.txt",
    "tests/test_@module@.py": "test_protocol.py.txt",
    ".gitignore": "gitignore.txt",
}
"""Path in the package → template."""
