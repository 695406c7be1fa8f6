"""Option ``--separate-users`` of the command ``daemon``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from fastn_p2p_client.home import Home

from .exit_codes import CommandLineError

if TYPE_CHECKING:
    from fastn_p2p_actors.runtime.separate_users import SeparateUsers


def separate(home: Home, text: str) -> SeparateUsers:
    """Return the users that the option names, after the home was given to them.

    Raises:
        CommandLineError: this is not root, or the option names no users.
        DaemonAlreadyRunning, HomeUnusable: the home cannot be given away.
    """
    from fastn_p2p_supervisor.home_lock import HomeLock
    from fastn_p2p_supervisor.user_names import parse_users

    if os.geteuid() != 0:
        raise CommandLineError("--separate-users: only root can start processes of other users. Use sudo, or the unit")
    try:
        users = parse_users(text)
    except ValueError as error:
        raise CommandLineError(f"--separate-users: {error}") from None
    HomeLock.acquire(home, users).release()
    return users
