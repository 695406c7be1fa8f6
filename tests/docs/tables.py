"""Tables of the pages that are made from the code.

A maker returns the columns that the code knows, one list for each row; the first of them is the row's key. Columns
behind them are written by hand, and stay with their key.
"""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from fastn_p2p.cli.command_groups import COMMANDS
from fastn_p2p.cli.typer_commands import program
from fastn_p2p.console.exit_codes import EXITS, TABLE
from fastn_p2p.console.formatting import format_setting
from fastn_p2p.protocols.files import messages as files
from fastn_p2p.protocols.files.cli import exit_code as file_exit_code
from fastn_p2p.protocols.files.config import FileTransferConfig
from fastn_p2p.protocols.files.errors import Kind
from fastn_p2p.protocols.files.events import Event
from fastn_p2p.protocols.files.progress import Ended
from fastn_p2p.protocols.mail.cli import EXITS as MAIL_EXITS
from fastn_p2p.protocols.mail.config import MailConfig
from fastn_p2p.protocols.tunnel.protocol import Tunnel
from fastn_p2p.protocols.web.protocol import Web
from fastn_p2p_actors.daemon_settings.catalogue import SETTINGS
from fastn_p2p_actors.gateway.metrics.metric_catalogue import METRICS, exposed_names
from fastn_p2p_actors.network.wire import messages as wire
from fastn_p2p_actors.vault import access_policy
from fastn_p2p_client import errors, limits
from fastn_p2p_client.ipc import messages as m
from fastn_p2p_client.mail import messages as mail
from fastn_p2p_supervisor.process_tree import ALLOWED_REQUESTS

ROOT: Final = Path(__file__).resolve().parents[2]
CODE: Final = ("client/fastn_p2p_client", "actors/fastn_p2p_actors", "supervisor/fastn_p2p_supervisor", "fastn_p2p")
ENVIRONMENT_OF_OTHERS: Final = (
    "XDG_RUNTIME_DIR",
    "NOTIFY_SOCKET",
    "JOURNAL_STREAM",
    "FORCE_COLOR",
    "CREDENTIALS_DIRECTORY",
)

Rows = list[list[str]]


class Generated(NamedTuple):
    """Generated table.

    Attributes:
        header: names of all columns.
        make: the columns that the code knows. It is given the keys that the page has, for tables that show a choice.
    """

    header: tuple[str, ...]
    make: Callable[[list[str]], Rows]


def sources() -> Iterator[str]:
    """Every source file of the packages, and the files of ``deploy``."""
    for folder in CODE:
        for file in (ROOT / folder).rglob("*.py"):
            yield file.read_text()
    yield from (file.read_text() for file in ROOT.glob("deploy/**/*") if file.is_file() and file.suffix != ".pyc")


def field_annotations(cls: type[Any]) -> dict[str, str]:
    """Field → annotation as it stands in the code."""
    merged: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        merged.update(inspect.get_annotations(base))
    return merged


def _code(texts: Iterable[object]) -> str:
    return ", ".join(f"`{text}`" for text in texts).replace("|", "\\|") or "none"


def _fields(cls: type[msgspec.Struct]) -> str:
    known = field_annotations(cls)
    return _code(f"{field.name}: {known[field.name]}" for field in msgspec.structs.fields(cls))


def _messages(*classes: type[msgspec.Struct]) -> Callable[[list[str]], Rows]:
    return lambda _: [[str(cls.__struct_config__.tag), f"`{cls.__name__}`", _fields(cls)] for cls in classes]


def _records(_: list[str]) -> Rows:
    records = [cls for _, cls in inspect.getmembers(m, inspect.isclass) if issubclass(cls, m.Record)]
    return [[f"`{cls.__name__}`", _fields(cls)] for cls in records if cls is not m.Record]


def _constants(module: Any, chosen: Callable[[str], bool]) -> Callable[[list[str]], Rows]:
    return lambda _: [[f"`{name}`", str(value)] for name, value in vars(module).items() if chosen(name)]


def _codes(module: Any, prefix: str) -> Callable[[list[str]], Rows]:
    return lambda _: [[str(value), f"`{name}`"] for name, value in vars(module).items() if name.startswith(prefix)]


def _errors(_: list[str]) -> Rows:
    return [
        [
            f"`{code}`",
            f"`{cls.__name__}`",
            _code(f"{field}: {field_annotations(cls)[field]}" for field in cls._names),
            "yes" if cls.retryable else "no",
            str(EXITS[code].value),
        ]
        for code, cls in errors.CODES.items()
    ]


def _wire_limits(keys: list[str]) -> Rows:
    """The page chooses the constants: those that a peer daemon meets."""
    rows = []
    for key in keys:
        module, _, name = key.strip("`").rpartition(".")
        rows.append([key, str(getattr(importlib.import_module(f"fastn_p2p_actors.{module}"), name))])
    return rows


def _stream_limits(keys: list[str]) -> Rows:
    return [[key, str(getattr(limits, key.strip("`")))] for key in keys]


def _vault(_: list[str]) -> Rows:
    def cell(rights: access_policy.Rights, role: str) -> str:
        states = [state.value for state, roles in rights.items() if role in roles]
        return "always" if len(states) == len(access_policy.VaultState) else ", ".join(states) or "no"

    return [
        [f"`{request.__name__}`", *(cell(rights, role) for role in ("gateway", "network", "owner"))]
        for request, rights in access_policy.TABLE.items()
    ]


def _supervisor(_: list[str]) -> Rows:
    assert list(ALLOWED_REQUESTS) == ["gateway", "network", "identity"]
    return [
        [f"`{request.__name__}`", *("yes" if request in allowed else "no" for allowed in ALLOWED_REQUESTS.values())]
        for requests in ALLOWED_REQUESTS.values()
        for request in sorted(requests, key=lambda each: each.__name__)
    ]


def _metrics(_: list[str]) -> Rows:
    return [
        [f"`{exposed_names(name)[0].removesuffix('_bucket')}`", each.kind, _code(each.labels), each.text]
        for name, each in METRICS.items()
    ]


def _environment(_: list[str]) -> Rows:
    read = {name for source in sources() for name in re.findall(r"\bFASTN_[A-Z_]+\b", source)}
    return [[f"`{name}`"] for name in (*sorted(read), *ENVIRONMENT_OF_OTHERS)]


def _exit_codes(_: list[str]) -> Rows:
    return [[str(int(code)), meaning] for code, meaning in TABLE.items()]


def _defaults(config: type[msgspec.Struct]) -> Callable[[list[str]], Rows]:
    def default(field: msgspec.structs.FieldInfo) -> str:
        if field.required:
            return "required"
        if isinstance(field.default, tuple):
            return ", ".join(field.default) or "none"
        return f"{field.default:.0f}" if isinstance(field.default, int | float) else str(field.default or "none")

    return lambda _: [[f"`{each.name}`", default(each)] for each in msgspec.structs.fields(config)]


def _names(cls: Any) -> str:
    return _code(cls.__struct_fields__)


def _tagged(union: Any) -> Callable[[list[str]], Rows]:
    return lambda _: [[f"`{cls.__struct_config__.tag}`", _names(cls)] for cls in typing.get_args(union)]


def _mail_requests(_: list[str]) -> Rows:
    def answer(cls: type[msgspec.Struct]) -> str:
        found = re.search(r"Answered by (?:an? )?``(\w+)``", " ".join((cls.__doc__ or "").split()))
        assert found is not None, cls
        return _names(getattr(mail, found[1]))

    requests = typing.get_args(mail.Request)
    return [[f"`{cls.__struct_config__.tag}`", _names(cls), answer(cls)] for cls in requests]


def _file_sessions(_: list[str]) -> Rows:
    requests = typing.get_args(files.SessionRequest)
    fields = [
        (f'"type": "{cls.__struct_config__.tag}"', *(f'"{each}"' for each in cls.__struct_fields__)) for cls in requests
    ]
    return [["`{" + ", ".join(each) + "}`"] for each in fields]


def _file_messages(_: list[str]) -> Rows:
    messages = typing.get_args(files.TransferMessage)
    return [[str(cls.__struct_config__.tag), f"`{cls.__name__}`", _names(cls)] for cls in messages]


def _session_messages(_: list[str]) -> Rows:
    """Messages of an open session, after those that open one."""
    before = {m.SessionOpened, m.ApplicationErrorReply, m.Ack, m.Cancel}
    messages = (m.OpenSession, m.DeliverSession, *typing.get_args(m.SessionMessage))
    return [[f"`{cls.__name__}`"] for cls in messages if cls not in before]


def _commands(group: Any, *words: str) -> Iterator[tuple[str, Any]]:
    """Every command below ``group`` as it is typed, groups left out."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, *words, name)
        else:
            yield " ".join((*words, name)), command


def _arguments(command: Any) -> str:
    """The arguments as they are typed: ``PEER [INSTANCE]``."""
    names = [(each, each.name.upper()) for each in command.params if each.param_type_name == "argument"]
    return "".join(f" {name}" if each.required else f" [{name}]" for each, name in names)


def _options(command: Any) -> str:
    options = [each for each in command.params if each.param_type_name == "option"]
    return _code(each.opts[0] for each in options if each.name not in ("home", "help"))


def _every_command(_: list[str]) -> Rows:
    group = program()
    group.commands = {name: group.commands[name] for name in COMMANDS}
    return [
        [f"`fastn-p2p {name}{_arguments(command)}`", command.get_short_help_str(limit=500), _options(command)]
        for name, command in _commands(group)
    ]


def _json_results(_: list[str]) -> Rows:
    aliases = {"create-identity", "identity-online", "identity-offline", "add-protocol", "remove-protocol"}
    group = program()
    group.commands = {name: group.commands[name] for name in COMMANDS if name not in aliases}
    return [[f"`{name}`"] for name, _ in _commands(group)]


_MESSAGE: Final = ("tag", "message", "fields", "meaning")
_REQUEST: Final = ("tag", "message", "fields", "answered by")


def _settings(_: list[str]) -> Rows:
    return [
        [
            f"`{each.key}`",
            _code(each.option.split(", ")),
            f"`{each.environment}`",
            "of the mode" if each.default is None else f"`{format_setting(each.default)[0]}`",
            each.allowed,
            "at once" if each.is_live else "next start",
            each.purpose,
        ]
        for each in SETTINGS
    ]


GENERATED: Final[dict[str, Generated]] = {
    "settings": Generated(
        ("setting", "option", "variable", "default", "allowed", "a change applies", "meaning"), _settings
    ),
    "metrics": Generated(("metric", "kind", "labels", "meaning"), _metrics),
    "commands": Generated(("command", "what it does", "options"), _every_command),
    "json results": Generated(("command", "standard output with `--json`"), _json_results),
    "exit codes": Generated(("exit code", "meaning"), _exit_codes),
    "messages of both": Generated(_MESSAGE, _messages(m.ErrorReply, m.Cancel, m.Ack, m.LongReply)),
    "control requests": Generated(_REQUEST, _messages(*typing.get_args(m.ControlRequest))),
    "control replies": Generated(_MESSAGE, _messages(*typing.get_args(m.ControlReply))),
    "data requests": Generated(_REQUEST, _messages(*typing.get_args(m.DataRequest))),
    "data messages": Generated(_MESSAGE, _messages(*typing.get_args(m.DataMessage))),
    "records": Generated(("record", "fields"), _records),
    "limits": Generated(("limit", "value", "meaning"), _constants(limits, str.isupper)),
    "errors": Generated(("code", "class", "fields", "retryable", "exit"), _errors),
    "wire messages": Generated(_MESSAGE, _messages(*typing.get_args(wire.WireMessage))),
    "close codes": Generated(("code", "constant", "meaning"), _codes(wire, "CLOSE_")),
    "wire limits": Generated(("constant", "value", "meaning"), _wire_limits),
    "vault": Generated(("request", "gateway", "network", "owner"), _vault),
    "supervisor": Generated(("request", "gateway", "network", "identity-NAME"), _supervisor),
    "environment": Generated(("variable", "read by", "meaning"), _environment),
    "session limits": Generated(("constant", "value", "meaning"), _stream_limits),
    "reset codes": Generated(("code", "constant", "sent when", "seen as"), _codes(limits, "RESET_")),
    "session messages": Generated(("message", "sender", "reply"), _session_messages),
    "tunnel config": Generated(("config", "default", "meaning"), _defaults(Tunnel.Config)),
    "web config": Generated(("config", "default", "meaning"), _defaults(Web.Config)),
    "mail config": Generated(("config", "default", "meaning"), _defaults(MailConfig)),
    "mail errors": Generated(
        ("kind", "exit", "meaning"), lambda _: [[f"`{kind}`", str(code.value)] for kind, code in MAIL_EXITS.items()]
    ),
    "mail requests": Generated(("type", "fields", "answer", "meaning"), _mail_requests),
    "files config": Generated(("config", "default", "meaning"), _defaults(FileTransferConfig)),
    "files errors": Generated(
        ("kind", "exit", "meaning"),
        lambda _: [[f"`{kind}`", str(file_exit_code(kind).value)] for kind in typing.get_args(Kind)],
    ),
    "files events": Generated(("event", "fields", "meaning"), _tagged(Event | Ended)),
    "files requests": Generated(("type", "fields", "answer"), _tagged(files.Request)),
    "files sessions": Generated(("initial data", "what follows"), _file_sessions),
    "files messages": Generated(("tag", "message", "fields", "from"), _file_messages),
}
"""Name → table."""
