"""Resolution of the settings: command line, then environment, then ``config.toml``, then the default."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from .catalogue import SETTINGS, Setting
from .config_file import read_config
from .sections import (
    DaemonSettings,
    IdentitiesSection,
    LimitsSection,
    LogSection,
    MetricsSection,
    NetworkMode,
    NetworkSection,
    WorkerSection,
)
from .server_urls import has_path, is_unencrypted_and_public

COMMAND_LINE: Final = "command line"
ENVIRONMENT: Final = "environment"
FILE: Final = "file"
DEFAULT: Final = "default"


class ResolvedSettings(NamedTuple):
    """Settings, and where each is from.

    Attributes:
        settings: the values.
        sources: key → ``command line``, ``environment``, ``file`` or ``default``.
    """

    settings: DaemonSettings
    sources: dict[str, str]

    def value(self, setting: Setting) -> Any:
        """Return the value of a setting. The default of a list is that of the network mode."""
        value = setting.value_in(self.settings)
        return value if value is not None else getattr(self.settings.network, f"used_{setting.name}")

    @property
    def fixed(self) -> tuple[str, ...]:
        """Keys whose value the file cannot change."""
        return tuple(key for key, source in self.sources.items() if source in (COMMAND_LINE, ENVIRONMENT))


def resolve_settings(
    file: Path, environment: Mapping[str, str], options: Mapping[str, Any] | None = None
) -> ResolvedSettings:
    """Return the settings of a daemon.

    Args:
        file: ``config.toml``, which need not exist.
        environment: the process's environment. An empty variable counts as not set.
        options: key → value, or list of words, that the command line gives.

    Raises:
        InvalidSettings: a value is not allowed, or the file is invalid.
        OSError: the file cannot be read.
    """
    in_file = read_config(file)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in SETTINGS:
        text = environment.get(setting.environment, "")
        if options and setting.key in options:
            given = options[setting.key]
            option = setting.option.partition(",")[0]
            values[setting.key] = (
                setting.parsed(given, option) if isinstance(given, list) else setting.checked(given, option)
            )
            sources[setting.key] = COMMAND_LINE
        elif text.strip():
            words = text.replace(",", " ").split() if setting.is_list else [text.strip()]
            values[setting.key] = setting.parsed(words, setting.environment)
            sources[setting.key] = ENVIRONMENT
        elif setting.key in in_file:
            values[setting.key] = in_file[setting.key]
            sources[setting.key] = FILE
        else:
            values[setting.key] = setting.default
            sources[setting.key] = DEFAULT
    return ResolvedSettings(_build(values), sources)


def warnings_of(resolved: ResolvedSettings) -> list[str]:
    """Return what the owner should know about settings that are valid."""
    network = resolved.settings.network
    found = [
        f"network.{name} is not used in network mode {network.mode}: that needs mode {NetworkMode.INTERNET}"
        for name, used in (("relays", network.used_relays), ("directories", network.used_directories))
        if getattr(network, name) and not used
    ]
    found += [
        f"the path of the relay {url} is not used: a relay has none. The URL of a directory belongs to "
        "network.directories"
        for url in network.used_relays
        if has_path(url)
    ]
    for kind, urls in (("relay", network.used_relays), ("directory", network.used_directories)):
        found += [
            f"the {kind} {url} is not encrypted, and its host may be on the internet: others on the way there see "
            "which identities and endpoints you use. Prefer https://"
            for url in urls
            if is_unencrypted_and_public(url)
        ]
    return found


def _build(values: Mapping[str, Any]) -> DaemonSettings:
    def section(name: str) -> dict[str, Any]:
        return {setting.name: values[setting.key] for setting in SETTINGS if setting.section == name}

    return DaemonSettings(
        network=NetworkSection(**section("network")),
        limits=LimitsSection(**section("limits")),
        identities=IdentitiesSection(**section("identities")),
        metrics=MetricsSection(**section("metrics")),
        worker=WorkerSection(**section("worker")),
        log=LogSection(**section("log")),
    )
