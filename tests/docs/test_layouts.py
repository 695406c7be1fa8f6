"""The docstring of each package names every module in it, and no module that does not exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from .tables import CODE, ROOT

PACKAGES = sorted(file.parent for folder in CODE for file in (ROOT / folder).rglob("__init__.py"))
COMMANDS = ROOT / "fastn_p2p/cli/commands"
"""Below it, modules and groups are named as the commands are, and the table of commands lists them."""


@pytest.mark.parametrize(
    "package",
    [each for each in PACKAGES if not each.is_relative_to(COMMANDS)],
    ids=lambda package: str(package.relative_to(ROOT)),
)
def test_the_docstring_of_a_package_names_its_modules(package: Path) -> None:
    docstring = ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""
    named = set(re.findall(r"\w+", docstring))
    modules = {file.stem for file in package.glob("*.py")} | {each.name for each in PACKAGES if each.parent == package}
    assert sorted(modules - named - {"__init__", "__main__"}) == []
    listed = re.findall(r"^(?:- )?((?:``\w+``(?:, )?)+)(?::|  )", docstring, re.MULTILINE)
    folders = {each.name for each in package.iterdir() if each.is_dir()}
    assert {name for names in listed for name in re.findall(r"\w+", names)} <= modules | folders
