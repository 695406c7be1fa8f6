"""Settings of the daemon for commands: invalid ones become usage errors."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fastn_p2p_actors.daemon_settings.catalogue import InvalidSettings, Setting, setting_of
from fastn_p2p_actors.daemon_settings.config_file import change_config
from fastn_p2p_actors.daemon_settings.resolution import ResolvedSettings, resolve_settings
from fastn_p2p_client.home import Home

from .exit_codes import CommandLineError


def resolve(home: Home, options: Mapping[str, Any] | None = None) -> ResolvedSettings:
    """Return the settings of the daemon of ``home``. Reads files and environment; sends nothing to the daemon.

    Args:
        options: key → value from the command line.

    Raises:
        CommandLineError: a key or a value is invalid.
        OSError: ``config.toml`` cannot be read.
    """
    with _as_usage_error():
        return resolve_settings(home.config_file, os.environ, options)


def find_setting(key: str) -> Setting:
    """Return the setting with this key. Raises CommandLineError."""
    with _as_usage_error():
        return setting_of(key)


def save_setting(home: Home, setting: Setting, words: list[str]) -> None:
    """Write a setting to ``config.toml``, or remove it if ``words`` is ``default``.

    Raises:
        CommandLineError: the value is not allowed, or the file is invalid already.
        OSError: the file cannot be read.
        P2PError: it cannot be written, or other users own the home.
    """
    if home.path.exists():
        home.check()
    with _as_usage_error():
        value = None if words == ["default"] else setting.parsed(words, "")
        change_config(home.config_file, setting, value)


@contextmanager
def _as_usage_error() -> Iterator[None]:
    try:
        yield
    except InvalidSettings as error:
        raise CommandLineError(str(error)) from None
