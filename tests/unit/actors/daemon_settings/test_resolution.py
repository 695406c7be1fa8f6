"""Precedence: command line, environment, file, default; and what each network mode makes of the values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from iroh.iroh_ffi import RelayMode

from fastn_p2p_actors.daemon_settings.catalogue import SETTINGS, InvalidSettings, setting_of
from fastn_p2p_actors.daemon_settings.resolution import ResolvedSettings, resolve_settings, warnings_of
from fastn_p2p_actors.daemon_settings.sections import (
    DEFAULT_DIRECTORIES,
    DEFAULT_RELAYS,
    DaemonSettings,
    NetworkSection,
)
from fastn_p2p_actors.daemon_settings.server_urls import is_unencrypted_and_public


def resolved(
    file: Path, text: str = "", environment: dict[str, str] | None = None, options: dict[str, Any] | None = None
) -> ResolvedSettings:
    file.write_text(text)
    return resolve_settings(file, environment or {}, options)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_the_catalogue_has_every_setting_once() -> None:
    keys = [
        f"{section.name}.{field.name}"
        for section in msgspec.structs.fields(DaemonSettings)
        for field in msgspec.structs.fields(section.type)
    ]
    assert [setting.key for setting in SETTINGS] == keys
    for unique in ("environment", "option"):
        assert len({getattr(setting, unique) for setting in SETTINGS}) == len(keys)


def test_default_relays_are_those_of_the_pinned_iroh() -> None:
    assert sorted(DEFAULT_RELAYS) == sorted(RelayMode.default_mode().relay_map().urls())


@pytest.mark.parametrize(
    ("key", "in_file", "in_environment", "option", "values"),
    [
        ("network.mode", '"local"', "lan", "internet", ("internet", "lan", "local", "internet")),
        (
            "network.relays",
            '["https://f"]',
            "https://e1, https://e2",
            ["https://o"],
            (("https://o",), ("https://e1", "https://e2"), ("https://f",), None),
        ),
        ("network.directories", "[]", "https://e", ["none"], ((), ("https://e",), (), None)),
        ("network.lan", "false", "on", False, (False, True, False, True)),
        ("limits.memory", "1", "2", 3, (3, 2, 1, 2048)),
        ("limits.connections", "1", "2", 3, (3, 2, 1, 128)),
    ],
)
def test_precedence(
    file: Path, key: str, in_file: str, in_environment: str, option: Any, values: tuple[Any, ...]
) -> None:
    setting = setting_of(key)
    text = f"[{setting.section}]\n{setting.name} = {in_file}\n"
    environment = {setting.environment: in_environment}
    found = [
        resolved(file, text, environment, {key: option}),
        resolved(file, text, environment),
        resolved(file, text, {setting.environment: ""}),
        resolved(file),
    ]
    assert tuple(setting.value_in(each.settings) for each in found) == values
    assert [each.sources[key] for each in found] == ["command line", "environment", "file", "default"]
    assert [each.fixed for each in found] == [(key,), (key,), (), ()]


@pytest.mark.parametrize(
    ("environment", "options", "words"),
    [
        ({"FASTN_NETWORK": "wan"}, {}, ("FASTN_NETWORK: ", '"wan"', "local, lan, internet")),
        ({"FASTN_LAN": "maybe"}, {}, ("FASTN_LAN: ", '"maybe"', "true or false")),
        ({"FASTN_MEMORY": "much"}, {}, ("FASTN_MEMORY: ", '"much"', "whole number")),
        ({"FASTN_MEMORY": "-1"}, {}, ("FASTN_MEMORY: ", "-1", "from 0")),
        ({"FASTN_RELAYS": "https://a ftp://b"}, {}, ("FASTN_RELAYS: ", '"ftp://b"', "https://")),
        ({"FASTN_RELAYS": "none https://a"}, {}, ("FASTN_RELAYS: ", '"none"')),
        ({}, {"network.relays": ["x"]}, ("--relay: ", '"x"', "https://")),
        ({}, {"network.directories": ["https://a#b"]}, ("--directory: ", "#")),
    ],
)
def test_names_the_variable_or_option_of_an_invalid_value(
    file: Path, environment: dict[str, str], options: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidSettings) as caught:
        resolved(file, "", environment, options)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("section", "relays", "directories", "lan"),
    [
        (NetworkSection(), DEFAULT_RELAYS, DEFAULT_DIRECTORIES, True),
        (NetworkSection(relays=(), directories=("https://d",), lan=False), (), ("https://d",), False),
        (NetworkSection(mode="lan"), (), (), True),
        (NetworkSection(mode="lan", relays=("https://r",), lan=False), (), (), False),
        (NetworkSection(mode="local", relays=("https://r",), directories=("https://d",)), (), (), False),
        (
            NetworkSection(mode="local", directories=("http://127.0.0.1:1/d", "https://10.0.0.1/d", "http://[::1]/d")),
            (),
            ("http://127.0.0.1:1/d", "http://[::1]/d"),
            False,
        ),
        (NetworkSection(mode="lan", directories=("http://127.0.0.1:1/d",)), (), (), True),
    ],
)
def test_the_mode_limits_what_is_used(
    section: NetworkSection, relays: tuple[str, ...], directories: tuple[str, ...], lan: bool
) -> None:
    assert (section.used_relays, section.used_directories, section.uses_lan) == (relays, directories, lan)


def test_warns_of_settings_that_the_mode_does_not_use(file: Path) -> None:
    found = warnings_of(resolved(file, '[network]\nmode = "lan"\nrelays = ["https://r"]\n'))
    assert found == ["network.relays is not used in network mode lan: that needs mode internet"]
    assert not warnings_of(resolved(file, '[network]\nmode = "lan"\nrelays = []\n'))
    assert not warnings_of(resolved(file))


@pytest.mark.parametrize("url", ["https://relay.example/pkarr", "https://relay.example", "https://relay.example/"])
def test_warns_of_a_relay_with_a_path(file: Path, url: str) -> None:
    found = warnings_of(resolved(file, "", {}, {"network.relays": [url], "network.directories": ["https://d/pkarr"]}))
    assert [f"the path of the relay {url} is not used" in each for each in found] == [True] * url.endswith("pkarr")


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://8.8.8.8:3340", True),
        ("http://[2606:4700::1]:3340/", True),
        ("http://relay.example", True),
        ("https://relay.example", False),
        ("http://127.0.0.1:3340", False),
        ("http://10.1.2.3", False),
        ("http://192.168.0.1", False),
        ("http://169.254.0.1", False),
        ("http://100.64.0.1", False),
        ("http://[::1]:1", False),
        ("http://[fe80::1%eth0]:1", False),
        ("http://[fd00::1]", False),
        ("http://localhost:80", False),
        ("http://printer.local.", False),
    ],
)
def test_warns_of_http_outside_private_addresses(file: Path, url: str, warned: bool) -> None:
    assert is_unencrypted_and_public(url) is warned
    found = warnings_of(resolved(file, "", {}, {"network.relays": [url], "network.directories": ["none"]}))
    assert [url in each and "https://" in each for each in found] == [True] * warned
