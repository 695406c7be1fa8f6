"""Network settings of the running daemon: what a reload of ``config.toml`` changes, and who is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastn_p2p_actors.daemon_settings.sections import DEFAULT_DIRECTORIES, DEFAULT_RELAYS, NetworkSection
from fastn_p2p_actors.network.live_settings import LiveSettings
from fastn_p2p_actors.network.settings_reload import SettingsReload
from fastn_p2p_actors.runtime.curve.keys import generate_vault_keys
from fastn_p2p_actors.runtime.specs import NetworkSettings
from fastn_p2p_client.errors import StorageDamaged


def reloading(file: Path, section: NetworkSection, *fixed: str) -> SettingsReload:
    keys = generate_vault_keys()
    return SettingsReload(file, NetworkSettings(vault=keys.network, grant_key=b"", network=section, fixed=fixed))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def test_callbacks_are_called_once_for_each_change() -> None:
    live = LiveSettings(NetworkSection())
    seen: list[tuple[str, ...]] = []
    live.on_change(lambda: seen.append(live.directories))
    assert not live.change(relays=None, directories=None)
    assert live.change(relays=None, directories=("https://d",))
    assert live.change(relays=(), directories=("https://d",))
    assert live.change(relays=None, directories=None)
    assert seen == [("https://d",), ("https://d",), DEFAULT_DIRECTORIES]


async def test_a_reload_changes_relays_and_directories_only(file: Path) -> None:
    reload = reloading(file, NetworkSection(relays=("https://old",)))
    await reload.reload()
    assert reload.live.relays == DEFAULT_RELAYS  # the key is not in the file
    file.write_text('[network]\nmode = "local"\nlan = false\nrelays = ["https://new"]\ndirectories = []\n')
    assert await reload.reload() == ()
    live = reload.live
    assert (live.mode, live.lan, live.relays, live.directories) == ("internet", True, ("https://new",), ())


async def test_a_reload_keeps_values_of_the_command_line(file: Path) -> None:
    reload = reloading(file, NetworkSection(relays=("https://option",)), "network.relays", "network.mode")
    file.write_text('[network]\nrelays = ["https://file"]\ndirectories = ["https://d"]\n')
    assert await reload.reload() == ("network.relays",)
    assert (reload.live.relays, reload.live.directories) == (("https://option",), ("https://d",))


async def test_an_invalid_file_changes_nothing(file: Path) -> None:
    section = NetworkSection(relays=("https://start",))
    file.write_text("[network]\nrelays = 3\n")
    reload = reloading(file, section)
    await reload.at_start()
    assert "line 2" in reload.problem
    assert reload.live.relays == ("https://start",)
    with pytest.raises(StorageDamaged, match="line 2"):
        await reload.reload()
    file.write_text("[network]\nrelays = []\n")
    await reload.reload()
    assert not reload.live.relays
    assert not reload.problem


async def test_a_reload_has_the_level_of_the_file(file: Path) -> None:
    reload = reloading(file, NetworkSection())
    await reload.reload()
    assert reload.log_level == "INFO"
    file.write_text('[log]\nlevel = "DEBUG"\n')
    await reload.reload()
    assert reload.log_level == "DEBUG"
    fixed = reloading(file, NetworkSection(), "log.level")
    assert await fixed.reload() == ("log.level",)
    assert fixed.log_level == ""
