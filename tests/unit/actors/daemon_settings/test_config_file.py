"""``config.toml``: every kind of invalid content is refused with its place, and a change keeps the rest of the file."""

from __future__ import annotations

import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fastn_p2p_actors.daemon_settings.catalogue import InvalidSettings, setting_of
from fastn_p2p_actors.daemon_settings.config_file import change_config, read_config

RELAYS = setting_of("network.relays")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "home" / "config.toml"


def written(file: Path, text: str | bytes) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def test_without_a_file_nothing_is_set(file: Path) -> None:
    assert read_config(file) == {}


def test_reads_every_setting(file: Path) -> None:
    text = """
    [network]
    mode = "lan"
    relays = ["https://relay.example", "http://10.0.0.1:3340"]
    directories = []
    lan = false
    [limits]
    memory = 0
    connections = 7
    """
    assert read_config(written(file, text)) == {
        "network.mode": "lan",
        "network.relays": ("https://relay.example", "http://10.0.0.1:3340"),
        "network.directories": (),
        "network.lan": False,
        "limits.memory": 0,
        "limits.connections": 7,
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[network]\nmode = "wan"', ("line 2", 'network.mode = "wan"', "local, lan, internet")),
        ("[network]\nmode = 3", ("line 2", "network.mode = 3", "local, lan, internet")),
        ('# comment\n\n[network]\nlan = "yes"', ("line 4", 'network.lan = "yes"', "true or false")),
        ("[network]\nlan = 1", ("line 2", "network.lan = 1", "true or false")),
        ('[network]\nrelays = "https://x"', ("line 2", 'network.relays = "https://x"', "a list of URLs")),
        ("[network]\nrelays = [1]", ("line 2", "network.relays = [1]", "a list of URLs")),
        ('[network]\nrelays = ["ftp://x"]', ("line 2", '"ftp://x"', "does not begin with https://")),
        ('[network]\nrelays = ["https://"]', ("line 2", '"https://"', "host")),
        ('[network]\nrelays = ["https://a b"]', ("line 2", "space")),
        ('[network]\nrelays = ["https://me:pw@x"]', ("line 2", "user name")),
        ('[network]\nrelays = ["https://x:99999"]', ("line 2", "not a URL")),
        ('[network]\ndirectories = ["https://x/?a"]', ("line 2", "network.directories", "?")),
        (f'[network]\ndirectories = ["https://x/{"a" * 300}"]', ("line 2", "255")),
        ("[limits]\nmemory = -1", ("line 2", "limits.memory = -1", "from 0")),
        ("[limits]\nconnections = 0", ("line 2", "limits.connections = 0", "from 1")),
        ("[limits]\nmemory = 1.5", ("line 2", "limits.memory = 1.5", "whole number")),
        ("[limits]\nmemory = true", ("line 2", "limits.memory = true", "whole number")),
        ("[network]\nmod = 1", ("line 2", "unknown key 'mod' in [network]", "Did you mean 'mode'?")),
        ("[network]\nzzz = 1", ("line 2", "Known: mode, relays, directories, lan")),
        ("[netwrk]\nmode = 1", ("line 1", "unknown section 'netwrk'", "Did you mean 'network'?")),
        ('mode = "lan"', ("line 1", "unknown key 'mode'", "Did you mean 'network.mode'?")),
        ("network = 3", ("line 1", "'network' is a section", "[network]")),
        ('network.mode = "wan"', ("line 1", 'network.mode = "wan"')),
        ('network = {mode = "wan"}', ("line 1", 'network.mode = "wan"')),
        ('["network"]\n"mode" = "wan"', ("line 2", 'network.mode = "wan"')),
        ("[network\n", ("not TOML", "line 1")),
        ('[network]\nmode = "lan"\nmode = "lan"', ("not TOML", "Cannot overwrite a value")),
        (b"[network]\n# \xff", ("line 2", "not UTF-8")),
    ],
)
def test_says_where_the_file_is_invalid_and_what_is_allowed(
    file: Path, text: str | bytes, words: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidSettings) as caught:
        read_config(written(file, text))
    message = str(caught.value)
    assert str(file) in message
    for word in words:
        assert word in message


def test_a_change_keeps_comments_and_order(file: Path) -> None:
    text = '# mine\n[limits]\nmemory = 5  # small\n\n[network]\n# here\nmode = "lan"\n'
    change_config(written(file, text), RELAYS, ("https://x",))
    changed = file.read_text()
    assert changed == text + 'relays = ["https://x"]\n'
    change_config(file, setting_of("network.mode"), "internet")
    assert file.read_text() == changed.replace('"lan"', '"internet"')


def test_none_removes_the_key_and_nothing_else(file: Path) -> None:
    text = '[network]\nmode = "lan"  # here\nrelays = []\n'
    change_config(written(file, text), RELAYS, None)
    assert file.read_text() == '[network]\nmode = "lan"  # here\n'
    change_config(file, RELAYS, None)  # does not raise


def test_makes_home_and_file_that_only_the_owner_reads(file: Path) -> None:
    change_config(file, RELAYS, ())
    assert file.read_text() == "[network]\nrelays = []\n"
    assert [path.stat().st_mode & 0o777 for path in (file.parent, file)] == [0o700, 0o600]
    assert [path.name for path in file.parent.iterdir()] == ["config.toml"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('network.mode = "lan"\n', "lan"),
        ('network = {mode = "lan"}\n', "lan"),
        ('["network"]\n"mode" = "lan"\n', "lan"),
    ],
)
def test_changes_files_in_other_spellings(file: Path, text: str, value: str) -> None:
    change_config(written(file, text), RELAYS, ("https://x",))
    assert read_config(file) == {"network.mode": value, "network.relays": ("https://x",)}


def test_does_not_change_an_invalid_file(file: Path) -> None:
    text = '[network]\nmode = "wan"\n'
    with pytest.raises(InvalidSettings, match="line 2"):
        change_config(written(file, text), RELAYS, ())
    assert file.read_text() == text


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    target = written(tmp_path / "elsewhere.toml", "")
    file.parent.mkdir()
    file.symlink_to(target)
    change_config(file, RELAYS, ())
    assert file.is_symlink()
    assert read_config(target) == {"network.relays": ()}


def test_changes_at_the_same_time_are_all_kept(file: Path) -> None:
    changes: list[tuple[str, Any]] = [
        ("network.mode", "lan"),
        ("network.lan", False),
        ("network.relays", ()),
        ("network.directories", ()),
        ("limits.memory", 1),
        ("limits.connections", 2),
    ]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda change: change_config(file, setting_of(change[0]), change[1]), changes))
    assert read_config(file) == dict(changes)
    assert set(tomllib.loads(file.read_text())) == {"network", "limits"}
