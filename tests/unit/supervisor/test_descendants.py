"""Processes of identities: when they have to be counted again."""

from __future__ import annotations

import subprocess
import sys

from fastn_p2p_supervisor.descendants import last_pid


def test_a_process_that_was_started_changes_the_last_pid() -> None:
    before = last_pid()
    assert before > 0
    subprocess.run([sys.executable, "-c", ""], check=True)
    assert last_pid() != before
