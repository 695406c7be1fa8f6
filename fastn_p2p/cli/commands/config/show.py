from __future__ import annotations

from ....console.options import HomeOption, JsonOption
from ....console.output import put_json, table, write_problem


def run(json: JsonOption = False, home: HomeOption = None) -> None:
    """Show each setting with its value and where the value comes from.

    Environment variables come before `config.toml`, and that before the defaults. Shows the values with which
    `fastn-p2p daemon` would start here now; `fastn-p2p status` shows those of the running daemon.
    """
    from fastn_p2p_actors.daemon_settings.catalogue import SETTINGS
    from fastn_p2p_actors.daemon_settings.resolution import ENVIRONMENT, warnings_of
    from fastn_p2p_client.home import Home

    from ....console.daemon_settings import resolve
    from ....console.formatting import format_setting

    resolved = resolve(Home.find(home))
    if json:
        put_json({each.key: {"value": resolved.value(each), "source": resolved.sources[each.key]} for each in SETTINGS})
        return
    rows = [
        (
            each.key,
            " ".join(format_setting(resolved.value(each))),
            each.environment if resolved.sources[each.key] == ENVIRONMENT else resolved.sources[each.key],
        )
        for each in SETTINGS
    ]
    table(("setting", "value", "from"), rows)
    for warning in warnings_of(resolved):
        write_problem(warning)
