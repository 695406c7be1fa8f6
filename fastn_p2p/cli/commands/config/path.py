from __future__ import annotations

from ....console.options import HomeOption, JsonOption
from ....console.output import put_json, write_result


def run(json: JsonOption = False, home: HomeOption = None) -> None:
    """Print the path of `config.toml`. The file need not exist."""
    from fastn_p2p_client.home import Home

    path = str(Home.find(home).config_file)
    if json:
        put_json(path)
    else:
        write_result(path)
