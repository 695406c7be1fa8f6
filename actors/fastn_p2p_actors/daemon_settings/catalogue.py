"""Catalogue of the settings: key, environment variable, option and allowed values of each, and checks of a value."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from .idle_time import ALLOWED, parse_idle_time
from .metrics_address import parse_metrics_address
from .sections import DaemonSettings, NetworkMode
from .server_urls import url_problem
from .worker_address import parse_worker_address

NONE: Final = "none"
"""Word that stands for an empty list or address, on the command line and in the environment."""
METRICS_ADDRESS: Final = "metrics.address"
WORKER_ADDRESS: Final = "worker.listen"
IDLE_TIME: Final = "identities.idle"
LOG_LEVEL: Final = "log.level"
_SWITCH: Final = {
    **dict.fromkeys(("true", "on", "yes", "1"), True),
    **dict.fromkeys(("false", "off", "no", "0"), False),
}


class InvalidSettings(ValueError):
    """A key or a value of the settings is invalid. The message says which one, from where, and what is allowed."""


class Setting(NamedTuple):
    """Setting of the daemon.

    Attributes:
        key: section and name, as in ``config get``.
        environment: name of the environment variable.
        option: option of ``fastn-p2p daemon``.
        allowed: values that are allowed, in words.
        purpose: meaning of the setting, in words.
        is_live: True if the running daemon takes a change of the file at once.
    """

    key: str
    environment: str
    option: str
    allowed: str
    purpose: str
    is_live: bool = False

    @property
    def section(self) -> str:
        return self.key.partition(".")[0]

    @property
    def name(self) -> str:
        return self.key.partition(".")[2]

    @property
    def default(self) -> Any:
        """The value without command line, environment and file."""
        return self.value_in(DaemonSettings())

    @property
    def is_list(self) -> bool:
        return self.key in _LISTS

    def value_in(self, settings: DaemonSettings) -> Any:
        """Return the value of this setting."""
        return getattr(getattr(settings, self.section), self.name)

    def checked(self, value: Any, source: str) -> Any:
        """Return a value with the setting's type.

        Args:
            value: the value as TOML or ``parsed`` gives it.
            source: place of the value, for the error; may be empty.

        Raises:
            InvalidSettings: the value is not allowed.
        """
        try:
            converted = msgspec.convert(value, _types()[self.key])
        except msgspec.ValidationError:
            raise InvalidSettings(self._message(_shown(value), source)) from None
        for url in converted if self.is_list and converted else ():
            problem = url_problem(url)
            if problem:
                raise InvalidSettings(self._message(_shown(url), source, problem))
        check = _CHECKS.get(self.key)
        if check is not None and converted:
            try:
                check(converted)
            except ValueError as error:
                raise InvalidSettings(self._message(_shown(converted), source, str(error))) from None
        return tuple(dict.fromkeys(converted)) if self.is_list else converted

    def parsed(self, words: Sequence[str], source: str) -> Any:
        """Return the value that words of a command line or an environment variable stand for.

        Raises:
            InvalidSettings: the words stand for no value that is allowed.
        """
        if self.is_list:
            return () if list(words) == [NONE] else self.checked(tuple(words), source)
        if len(words) != 1:
            raise InvalidSettings(self._message(" ".join(words), source, "it is one value"))
        text = words[0]
        if self.key in (METRICS_ADDRESS, WORKER_ADDRESS) and text == NONE:
            return ""
        if self.key == LOG_LEVEL:
            return self.checked(text.upper(), source)
        kind = _types()[self.key]
        if kind is bool:
            return self.checked(_SWITCH.get(text.lower(), text), source)
        if text.lstrip("-").isascii() and text.lstrip("-").isdigit():
            return self.checked(int(text), source)
        return self.checked(text, source)

    def _message(self, value: str, source: str, problem: str = "") -> str:
        place = f"{source}: " if source else ""
        reason = f": {problem}" if problem else ""
        return f"{place}{self.key} = {value} is not valid{reason}. Allowed: {self.allowed}"


_URLS: Final = "a list of URLs that begin with https:// or http://; an empty list for none"
_CHECKS: Final[dict[str, Callable[[str], object]]] = {
    METRICS_ADDRESS: parse_metrics_address,
    WORKER_ADDRESS: parse_worker_address,
    IDLE_TIME: parse_idle_time,
}
_LISTS: Final = frozenset({"network.relays", "network.directories"})

SETTINGS: Final = (
    Setting(
        "network.mode",
        "FASTN_NETWORK",
        "--network",
        ", ".join(NetworkMode.ALL),
        "networks in use: only this machine; the LAN as well; or also relays and directories on the internet",
    ),
    Setting(
        "network.relays",
        "FASTN_RELAYS",
        "--relay",
        _URLS,
        "relays of mode `internet`, which carry traffic when no direct path works",
        is_live=True,
    ),
    Setting(
        "network.directories",
        "FASTN_DIRECTORIES",
        "--directory",
        _URLS,
        "directories of mode `internet`, where peer records are published and looked up; `/<key>` is appended to each",
        is_live=True,
    ),
    Setting(
        "network.lan",
        "FASTN_LAN",
        "--lan, --no-lan",
        "true or false",
        "find peers on the LAN, and be found there, in the modes `lan` and `internet`",
    ),
    Setting(
        "limits.memory",
        "FASTN_MEMORY",
        "--memory",
        "a whole number from 0",
        "MiB of data that each identity's process may have; 0 for no limit",
    ),
    Setting(
        "limits.connections",
        "FASTN_CONNECTIONS",
        "--connections",
        "a whole number from 1",
        "connections that one program may have to each process of the daemon",
    ),
    Setting(
        "limits.sandbox",
        "FASTN_SANDBOX",
        "--sandbox, --no-sandbox",
        "true or false",
        "confine each process to the files, sockets and system calls that it needs or was granted",
    ),
    Setting(
        IDLE_TIME,
        "FASTN_IDLE",
        "--idle",
        ALLOWED,
        "time without use after which new identities fall asleep; `identity set --idle` changes it for one",
    ),
    Setting(
        METRICS_ADDRESS,
        "FASTN_METRICS",
        "--metrics",
        "HOST:PORT with an address of loopback, or unix:PATH; empty for none",
        "address at which metrics are served for Prometheus, by HTTP below `/metrics`",
    ),
    Setting(
        WORKER_ADDRESS,
        "FASTN_WORKER_LISTEN",
        "--worker-listen",
        "HOST:PORT with an IP address of this machine, or 0.0.0.0 or [::] for all; empty for none",
        "address at which workers on other machines connect, by TLS; see `fastn-p2p worker-token`",
    ),
    Setting(
        LOG_LEVEL,
        "FASTN_LOG",
        "--log-level",
        "DEBUG, INFO, WARNING or ERROR",
        "lowest level of the lines that the log files get",
        is_live=True,
    ),
    Setting(
        "log.format",
        "FASTN_LOG_FORMAT",
        "--log-format",
        "text or json",
        "format of the log files: lines of text, or one JSON object on each line",
    ),
)
"""Every setting, in the order of ``config show``."""


def setting_of(key: str) -> Setting:
    """Return the setting with this key.

    Raises:
        InvalidSettings: there is none. The message names the nearest one.
    """
    for setting in SETTINGS:
        if setting.key == key:
            return setting
    raise InvalidSettings(f"there is no setting {key!r}. {nearest(key, [each.key for each in SETTINGS])}")


def nearest(word: str, known: Sequence[str]) -> str:
    """Return a sentence that proposes the known word nearest to ``word``, or lists all if none is near."""
    found = difflib.get_close_matches(word, known, 1)
    if not found:  # the name without its section, or with another one
        found = [each for each in known if each.rpartition(".")[2] == word.rpartition(".")[2]]
    if not found:
        found = [
            each for each in known if difflib.get_close_matches(word.rpartition(".")[2], [each.rpartition(".")[2]])
        ]
    return f"Did you mean {found[0]!r}?" if found else f"Known: {', '.join(known)}"


def _types() -> dict[str, Any]:
    """Return the type of each setting by key."""
    if not _found_types:
        for section in msgspec.structs.fields(DaemonSettings):
            for field in msgspec.structs.fields(section.type):
                _found_types[f"{section.name}.{field.name}"] = (
                    tuple[str, ...] if f"{section.name}.{field.name}" in _LISTS else field.type
                )
    return _found_types


_found_types: dict[str, Any] = {}


def _shown(value: Any) -> str:
    """Return a value as it stands in TOML."""
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    return str(value)
