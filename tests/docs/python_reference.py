"""Page of the public Python API, from its docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any, Final

MODULES: Final = ("", ".sync", ".protocol", ".testing", ".errors", ".mail", ".mail.sync", ".chat")
"""Public modules of ``fastn_p2p_client``."""
_SECTION: Final = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):$")


def python_reference() -> str:
    """Return the page."""
    lines = [
        "# Python API",
        "",
        "The public modules of `fastn-p2p-client`. [Use it from Python](python.md) shows how they are used.",
        "",
    ]
    for name in MODULES:
        module = importlib.import_module(f"fastn_p2p_client{name}")
        lines += [f"## {module.__name__}", "", docstring(module), ""]
        for public in module.__all__:
            member = getattr(module, public)
            if name or not (inspect.isclass(member) and issubclass(member, BaseException)):
                lines += _member(public, member)
    return "\n".join(lines) + "\n"


def _member(name: str, member: Any) -> Iterator[str]:
    if inspect.isclass(member) and member.__module__.startswith("fastn_p2p_client"):
        yield from (f"### {name}", "", *_signature("class ", name, member), docstring(member), "")
        for inner, function in vars(member).items():
            if not inner.startswith("_") and function.__doc__ and _is_documented(function):
                called = getattr(member, inner) if not isinstance(function, property) else function
                yield from (f"#### {name}.{inner}", "", *_signature("", inner, called), docstring(function), "")
    elif callable(member):
        yield from (f"### {name}", "", *_signature("", name, member), docstring(member), "")


def _is_documented(member: object) -> bool:
    return inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod)


def _signature(prefix: str, name: str, member: Any) -> Iterator[str]:
    """Yield a block with the signature, one parameter on each line if it is long."""
    if isinstance(member, property):
        return
    try:
        signature = inspect.signature(member)
    except (TypeError, ValueError):
        return
    prefix = "async " if inspect.iscoroutinefunction(member) else prefix
    shown = str(signature).replace("'", "")
    if len(prefix + name + shown) > 88:
        parameters = [str(each).replace("'", "") for each in signature.parameters.values()]
        for position, each in enumerate(signature.parameters.values()):
            if each.kind is each.KEYWORD_ONLY:
                parameters.insert(position, "*")
                break
        end = shown[shown.rindex(")") :] if "->" not in shown else f") {shown[shown.rindex('->') :]}"
        shown = "(\n" + "".join(f"    {each},\n" for each in parameters) + end
    yield from ("```python", f"{prefix}{name}{shown}", "```", "")


def docstring(member: Any) -> str:
    """Return a docstring as Markdown: sections of arguments and errors become lists."""
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(_docstring_lines(member)))
    return text.replace("```python\n\n", "```python\n").replace("\n\n```\n", "\n```\n")


def _docstring_lines(member: Any) -> Iterator[str]:
    section, in_code, previous = "", False, ""
    for line in (inspect.getdoc(member) or "").partition("\nLayout\n---")[0].splitlines():
        text = re.sub(r"``(.+?)``", r"`\1`", line)
        if in_code and line and not line.startswith("    "):
            yield from ("```", "")
            in_code = False
        if in_code:
            yield line[4:]
        elif line == "::":
            yield "```python"
            in_code = True
        elif re.fullmatch(r"-+", line) and previous:
            continue
        elif found := _SECTION.match(line):
            section = found[1]
            yield from ("", f"**{section}**", "")
        elif section and (item := re.match(r"    (\*{0,2}[\w, .`]+): (.*)", text)):
            names = ", ".join(f"`{each.strip('` ')}`" for each in item[1].split(","))
            yield f"- {names}: {item[2]}"
        elif section and line.startswith("    "):
            yield f"  {text.strip()}" if line.startswith("        ") else text.strip()
        else:
            section = section if not line else ""
            yield text
        previous = line
    if in_code:
        yield "```"
