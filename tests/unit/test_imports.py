"""Modules that the import of a package must not load.

The static contracts are in `pyproject.toml` (import-linter). These tests run the imports, each in an
interpreter of its own, and so also see what is imported by a function, a name in a string, or a
dependency.
"""

import json
import pathlib
import subprocess
import sys

import pytest

import fastn_p2p_client

CLIENT_NEEDS = ["msgspec", "zmq"]
HTTP_NEEDS = [*CLIENT_NEEDS, "anyio", "certifi", "h11", "httpcore", "httpx", "idna", "typing_extensions", "wsproto"]
OTEL_NEEDS = [*CLIENT_NEEDS, "opentelemetry", "typing_extensions"]
HEAVY = {"iroh", "nacl", "pydantic", "rich", "typer", "uvloop"}

# Imports every module of the client while nothing but the standard library and the names in argv[1]
# can be found, and prints the modules it imported.
ONLY_ALLOWED = """
import importlib, json, pkgutil, sys

allowed = sys.stdlib_module_names | {"fastn_p2p_client", *json.loads(sys.argv[1])}

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"blocked by test_imports: {name}", name=name)
        return None

sys.meta_path.insert(0, Blocker())
import fastn_p2p_client

extras = {"http", "otel", "nats_client.direct_client", "claims.postgres_claims", "postgres.error_advice"}
extras -= set(sys.argv[2:])
found = pkgutil.walk_packages(fastn_p2p_client.__path__, "fastn_p2p_client.")
names = [
    each.name
    for each in found
    if not (each.name.count(".") > 1 and {each.name.split(".")[1], each.name.split(".", 1)[1]} & extras)
]
for name in names:
    if not name.endswith(".__main__"):
        importlib.import_module(name)
print(json.dumps(names))
"""

LOADED_BY = """
import importlib, json, sys
importlib.import_module(sys.argv[1])
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def run_isolated(code: str, *arguments: str) -> list[str]:
    """Run `code` in a new interpreter with `arguments` as argv. Return the JSON list that it prints."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, *arguments], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    names: list[str] = json.loads(done.stdout)
    return names


def test_client_imports_with_nothing_but_pyzmq_and_msgspec() -> None:
    imported = run_isolated(ONLY_ALLOWED, json.dumps(CLIENT_NEEDS))

    package = pathlib.Path(fastn_p2p_client.__file__).parent
    files = {
        file
        for file in package.rglob("*.py")
        if file.name not in ("__init__.py", "direct_client.py", "postgres_claims.py", "error_advice.py")
        and file.parent.name not in ("http", "otel")
    }
    assert len(imported) >= len(files), "a module of the client was not imported"


def test_http_imports_with_what_its_extra_brings() -> None:
    imported = run_isolated(ONLY_ALLOWED, json.dumps(HTTP_NEEDS), "http")
    assert "fastn_p2p_client.http.request_reader" in imported


def test_spans_import_with_what_their_extra_brings() -> None:
    assert "fastn_p2p_client.otel.spans" in run_isolated(ONLY_ALLOWED, json.dumps(OTEL_NEEDS), "otel")


def test_blocker_refuses_what_is_not_allowed() -> None:
    """The test above has teeth: with nothing allowed, a client that uses a dependency does not import."""
    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-c",
            ONLY_ALLOWED.replace("import fastn_p2p_client\n", "import msgspec\n"),
            "[]",
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode != 0
    assert "blocked by test_imports: msgspec" in done.stderr


def test_importing_fastn_p2p_loads_nothing_heavy() -> None:
    assert HEAVY.isdisjoint(run_isolated(LOADED_BY, "fastn_p2p"))


def test_a_program_without_opentelemetry_loads_none() -> None:
    """Also when it calls and serves: the environment of the tests has it installed."""
    code = """
import asyncio, json, sys
from fastn_p2p_client import Client
from fastn_p2p_client.testing import Conformance, check_requests, serve

async def main():
    async with serve(Conformance) as client:
        assert await client.call(1) == 1
    try:
        await Client("/nowhere").call("alice", "bob", "Echo")
    except Exception as error:
        print(json.dumps([type(error).__name__, *(name for name in sys.modules if name.startswith("opentelemetry"))]))

asyncio.run(main())
"""
    assert run_isolated(code) == ["DaemonNotRunning"]


def test_importing_the_client_loads_nothing_of_the_daemon() -> None:
    loaded = run_isolated(LOADED_BY, "fastn_p2p_client")
    assert [name for name in loaded if name.startswith("fastn_p2p")] == ["fastn_p2p_client"]


def test_importing_the_supervisor_loads_no_network_and_no_cryptography() -> None:
    assert {"iroh", "nacl"}.isdisjoint(run_isolated(LOADED_BY, "fastn_p2p_supervisor"))


def test_starting_the_supervisor_loads_no_command_line() -> None:
    assert {"typer", "rich", "tomlkit"}.isdisjoint(run_isolated(LOADED_BY, "fastn_p2p.console.supervisor_start"))


LOADED_BY_NAME = """
import json, sys
from fastn_p2p_client import PublicKey
before = sorted(sys.modules)
getattr(__import__("fastn_p2p_client"), sys.argv[1])
print(json.dumps([name for name in sys.modules if name not in before]))
"""


def test_names_of_the_client_are_imported_at_their_first_use() -> None:
    calling = run_isolated(LOADED_BY_NAME, "call")
    assert {"asyncio", "fastn_p2p_client.client"} <= set(calling)
    assert not [name for name in calling if name.startswith("fastn_p2p_client.serving")]
    assert "fastn_p2p_client.serving.server" in run_isolated(LOADED_BY_NAME, "listen")


LOADED_BY_COMMAND = """
import contextlib, sys
from fastn_p2p.console.deferred_modules import DeferredModule
from fastn_p2p.__main__ import main
sys.argv = ["fastn-p2p", *sys.argv[1].split()]
with contextlib.redirect_stderr(None):
    assert main() == 3
loaded = [name for name, module in sys.modules.items() if not isinstance(module, DeferredModule)]
print(repr(loaded).replace("'", '"'))
"""


@pytest.mark.parametrize("command", ["call bob Echo --data {}", "ping bob", "identity-online alice"])
def test_commands_load_only_what_they_need(command: str, tmp_path: pathlib.Path) -> None:
    loaded = run_isolated(LOADED_BY_COMMAND, f"--home {tmp_path} {command}")

    assert "fastn_p2p_client.ipc.messages.data" in loaded
    unneeded = {"typer", "ssl", "dataclasses", "random", "json", "rich", "uvloop", "iroh", "zmq"}
    assert not unneeded & set(loaded)
    assert "fastn_p2p_client.ipc.messages.control" not in loaded
    commands = [name for name in loaded if name.startswith("fastn_p2p.cli.commands.")]
    assert commands == [f"fastn_p2p.cli.commands.{command.split()[0].replace('-', '_')}"]


IN_THREADS = """
import json, sys, threading
from fastn_p2p.console.deferred_modules import DEFERRED, DeferredModule, defer_modules
defer_modules()
import importlib
modules = [importlib.import_module(name) for name in sorted(DEFERRED)]
deferred = [module.__name__ for module in modules if isinstance(module, DeferredModule)]
import ssl
assert isinstance(ssl, DeferredModule)
barrier, found = threading.Barrier(8), []
def use():
    barrier.wait()
    found.append(ssl.create_default_context().verify_mode is ssl.CERT_REQUIRED)
threads = [threading.Thread(target=use) for _ in range(8)]
for each in threads: each.start()
for each in threads: each.join()
assert found == [True] * 8
for module in modules:
    assert hasattr(module, "__doc__") and not hasattr(module, "no_such_name")
    assert not isinstance(module, DeferredModule)
    assert module.__loader__ is module.__spec__.loader
print(json.dumps(deferred))
"""


def test_deferred_modules_are_whole_when_they_are_used_also_in_threads() -> None:
    deferred = run_isolated(IN_THREADS, "")
    assert {"ssl", "asyncio.sslproto", "msgspec.inspect"} <= set(deferred)


HIDDEN = """
import json, sys
from fastn_p2p.console.deferred_modules import defer_modules
defer_modules()
import importlib.metadata, msgspec
loaded = sorted(sys.modules)
import typing_extensions
class Pair(typing_extensions.TypedDict):
    first: int
    second: typing_extensions.NotRequired[int]
assert msgspec.json.decode(sys.argv[1], type=Pair) == {"first": 1}
assert importlib.metadata.version("msgspec")
assert msgspec.__loader__ is msgspec.__spec__.loader
print(json.dumps(loaded))
"""


def test_msgspec_and_metadata_do_without_large_modules_until_one_is_used() -> None:
    loaded = run_isolated(HIDDEN, '{"first": 1}')
    assert {"typing_extensions", "email.message"}.isdisjoint(loaded)
