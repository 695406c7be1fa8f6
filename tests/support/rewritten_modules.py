"""Files with the rewritten assertions of test modules: each process of a run writes a share of them at first.

Every process imports every module, at the same time as the others. In a fresh checkout each would rewrite all of them:
6 s of processor time in each of four processes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest.assertion import rewrite

__all__ = ["write_share"]


def write_share(config: pytest.Config) -> None:
    """Write what is missing of this process's share. pytest's import hook reads it, or writes what it does not find."""
    worker = getattr(config, "workerinput", None)
    if worker is None or sys.dont_write_bytecode:
        return
    number, count = int(worker["workerid"].removeprefix("gw")), int(worker["workercount"])
    for module in sorted(set(_modules(config)))[number::count]:
        directory = rewrite.get_cache_dir(module)
        file = directory / f"{module.stem}{rewrite.PYC_TAIL}"
        if not file.exists() and rewrite.try_makedirs(directory):
            source_hash, code = rewrite._rewrite_test(module, config)
            rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, source_hash, file)


def _modules(config: pytest.Config) -> Iterator[Path]:
    """Yield the test modules that the arguments of the command line name."""
    start = config.invocation_params.dir
    ignored = {start / each for each in config.getoption("ignore") or ()}
    for argument in config.args:
        path = start / argument.partition("::")[0]
        for each in (path,) if path.is_file() else path.rglob("test_*.py"):
            if ignored.isdisjoint((each, *each.parents)):
                yield each
