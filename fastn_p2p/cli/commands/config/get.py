from __future__ import annotations

from ....console.options import HomeOption, JsonOption, SettingArgument
from ....console.output import put_json, write_result


def run(key: SettingArgument, json: JsonOption = False, home: HomeOption = None) -> None:
    """Print the value of one setting, a list with one entry on each line.

    It is the value with which `fastn-p2p daemon` would start here now, as `fastn-p2p config show` has it.
    """
    from fastn_p2p_client.home import Home

    from ....console.daemon_settings import find_setting, resolve
    from ....console.formatting import format_setting

    setting = find_setting(key)
    value = resolve(Home.find(home)).value(setting)
    if json:
        put_json(value)
    else:
        write_result("\n".join(format_setting(value)))
