"""The harness of the tests."""

from __future__ import annotations

import subprocess
import sys

START = """
import signal, subprocess, sys
numbers = [signal.SIGINT, signal.SIGQUIT, signal.SIGHUP]
for number in numbers:
    signal.signal(number, signal.SIG_IGN)
import tests.conftest
started = "import signal; print([signal.getsignal(each).name for each in %r if each != 2], signal.getsignal(2))"
subprocess.run([sys.executable, "-c", started % [int(each) for each in numbers]], check=True)
"""


def test_programs_hear_signals_although_a_shell_has_started_the_tests_in_the_background() -> None:
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("['SIG_DFL', 'SIG_DFL'] <built-in function default_int_handler>"), done.stdout
