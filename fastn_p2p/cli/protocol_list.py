"""``fastn-p2p protocol list``: the installed protocols as text or JSON."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastn_p2p_client.errors import DaemonNotRunning
from fastn_p2p_client.ipc.messages import ProtocolInfo
from fastn_p2p_client.plain_text import plain

from ..console.control_request import with_daemon
from ..console.output import put_json, write_message, write_result


def show(home: Path | None, *, json: bool) -> None:
    """Print the installed protocols.

    Raises:
        P2PError: a daemon runs, but the request failed.
    """
    protocols = _installed(home)
    if json:
        put_json(protocols)
    elif protocols:
        write_result("\n\n".join(format_protocol(each) for each in protocols))
    else:
        write_message("No protocols are installed.")


def _installed(home: Path | None) -> Sequence[ProtocolInfo]:
    try:
        return with_daemon(home, lambda client: client.protocols.list())
    except DaemonNotRunning:
        from fastn_p2p_actors.gateway.commands.protocols import describe_installed
        from fastn_p2p_actors.gateway.one_shot_workers import OneShotWorkers
        from fastn_p2p_actors.gateway.worker_programs import WorkerPrograms
        from fastn_p2p_actors.identity.one_shot_worker import WorkerLimits

        write_message("No daemon is running. These protocols are installed in the environment of this command:")
        return asyncio.run(describe_installed(OneShotWorkers(WorkerPrograms(), WorkerLimits()))).protocols


def format_protocol(protocol: ProtocolInfo) -> str:
    """Return the lines of one protocol: name, description, origin, and the fields of its config."""
    origin = f"{protocol.distribution} {protocol.version}".strip() or "unknown origin"
    if protocol.problem:
        lines = [f"{protocol.name}  BROKEN: {protocol.problem}", f"    {origin} ({protocol.code})"]
        return "\n".join(map(plain, lines))
    takes = " and ".join(word for word, does in (("calls", protocol.requests), ("streams", protocol.streams)) if does)
    access = "everyone" if protocol.public else "peers"
    lines = [
        f"{protocol.name}  {protocol.description}".rstrip(),
        f"    {origin} ({protocol.code}); takes {takes or 'nothing'}; default access: {access}",
    ]
    rows = config_rows(protocol.config_schema)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    lines += ["      " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(map(plain, lines))


def config_rows(schema: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return name, type, default and description of each field of a config."""
    definitions = schema.get("$defs", {})
    top = _resolved(schema, definitions)
    required = set(top.get("required", ()))
    return [
        (
            name,
            _type_of(field, definitions),
            "required" if name in required else f"default {_as_text(field.get('default'))}",
            str(_resolved(field, definitions).get("description", "")),
        )
        for name, field in top.get("properties", {}).items()
    ]


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema that a reference points to, following one reference."""
    found = definitions.get(str(schema.get("$ref", "")).rpartition("/")[2], schema)
    return found if isinstance(found, dict) else schema


def _type_of(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(_resolved(schema, definitions).get("title", "object"))
    if "enum" in schema:
        return " or ".join(_as_text(value) for value in schema["enum"])
    if "const" in schema:
        return _as_text(schema["const"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_type_of(each, definitions) for each in schema["anyOf"]))
    kind = str(schema.get("type", "anything"))
    if kind == "array" and isinstance(schema.get("items"), dict):
        return f"list of {_type_of(schema['items'], definitions)}"
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (
            ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"),
            ("minLength", "length ≥"), ("maxLength", "length ≤"),
        )
        if key in schema
    ]  # fmt: skip
    return " ".join([kind, ", ".join(bounds)]).rstrip()


def _as_text(value: object) -> str:
    from ..console.json_values import to_json

    return to_json(value).decode()
