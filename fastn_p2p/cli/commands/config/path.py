from __future__ import annotations

from ....console.options import HomeOption
from ....console.output import write_result


def run(home: HomeOption = None) -> None:
    """Print the path of `config.toml`. The file need not exist."""
    from fastn_p2p_client.home import Home

    write_result(str(Home.find(home).config_file))
