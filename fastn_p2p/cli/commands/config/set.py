from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from ....console.options import HomeOption, JsonOption, SettingArgument
from ....console.output import put_json, write_message, write_problem
from ....console.parameters import Argument

if TYPE_CHECKING:
    from fastn_p2p_actors.daemon_settings.catalogue import Setting
    from fastn_p2p_client.home import Home


def run(
    key: SettingArgument,
    value: Annotated[
        list[str],
        Argument(
            metavar="VALUE...",
            help="The value; for a list, all its entries, or `none`. `default`: remove the setting from the file.",
        ),
    ],
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Write one setting to `config.toml`.

    Relays, directories and the log level take effect on the running daemon at once, every other setting at its next
    start.
    Comments and other settings in the file stay as they are.
    """
    from fastn_p2p_actors.daemon_settings.resolution import ENVIRONMENT, warnings_of
    from fastn_p2p_client.home import Home

    from ....console.daemon_settings import find_setting, resolve, save_setting

    found = Home.find(home)
    setting = find_setting(key)
    save_setting(found, setting, value)
    effect = _effect(found, setting)
    write_message(effect)
    resolved = resolve(found)
    if json:
        put_json({"key": setting.key, "value": resolved.value(setting), "effect": effect})
    if resolved.sources[setting.key] == ENVIRONMENT:
        write_message(f"In this shell {setting.environment} is set, which comes before the file.")
    for warning in warnings_of(resolved) if setting.section == "network" else ():
        write_problem(warning)


def _effect(home: Home, setting: Setting) -> str:
    """Apply the file to the running daemon, if there is one, and return the sentence that says what came of it."""
    from fastn_p2p_client.errors import DaemonNotRunning, P2PError
    from fastn_p2p_client.ipc.messages import ReloadSettings

    from ....console.control_request import request_daemon

    saved = f"Saved {setting.key}."
    if home.daemon_pid() is None:
        return f"{saved} The daemon uses it from its next start."
    if not setting.is_live:
        return f"{saved} Restart the daemon to use it."
    try:
        fixed = request_daemon(home.path, ReloadSettings()).fixed
    except DaemonNotRunning:
        return f"{saved} The daemon uses it from its next start."
    except P2PError:
        write_message(f"{saved} The running daemon has not taken it; it uses it from its next start. The reason:")
        raise
    if setting.key in fixed:
        first = f"{setting.option} or {setting.environment}"
        return f"{saved} The running daemon was started with {first}, which comes first: restart it without that."
    return f"{saved} The running daemon uses it now."
