"""The local protocol: every message between programs and the processes of the daemon. docs/protocol.md specifies it.

A message is three frames, ``[id, header, payload]``, over ZMTP on a Unix socket (programs hold DEALERs). One ZeroMQ
message can carry several messages: first the frames of the first one, then those of the second, and so on.

* ``id`` is the correlation id, at most 16 bytes. The sender of a request chooses it, and the reply bears the same one.
  Ids of 8 bytes with the highest bit of the first byte set belong to the daemon: it uses them for calls and sessions
  that it delivers to a program.
* ``header`` is one of the structs below as a msgpack array. Its first item is the integer tag.
* ``payload`` is opaque bytes, empty where a message has none. The caller encodes it and the handler decodes it; no
  process in between looks inside.

A program has two conversations in this format. On ``control.sock``, which the gateway serves, it sends ``Hello`` first
and learns the path of the network process's socket. On that one it makes calls, opens sessions and serves bindings.
Times are milliseconds and sizes are bytes.

- ``base``: the base classes, and messages of both conversations.
- ``hello``: the first messages between a program and the gateway.
- ``control``: the list of all messages between a program and the gateway. By what they are about: ``identities``,
  ``bindings``, ``peers``, ``access``, ``invitations``, ``traces``, ``status``, ``health``, ``maintenance``,
  ``replicas``.
- ``data``: between a program or identity process and the network process.

All messages are imported from here. Their modules are imported at the first use of one of their names.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .access import *
    from .base import *
    from .bindings import *
    from .control import *
    from .data import *
    from .health import *
    from .hello import *
    from .identities import *
    from .invitations import *
    from .maintenance import *
    from .peers import *
    from .replicas import *
    from .status import *
    from .traces import *

_MODULES: Final = (
    "base",
    "data",
    "hello",
    "status",
    "peers",
    "identities",
    "traces",
    "bindings",
    "access",
    "invitations",
    "maintenance",
    "replicas",
    "health",
    "control",
)
"""Modules in the order in which a name is looked for: first those that a call needs, then by how often one is used."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        for each in _MODULES if not name.startswith("_") else ():
            module = import_module(f"{__name__}.{each}")
            if name in module.__all__:
                value = globals()[name] = getattr(module, name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted(name for each in _MODULES for name in import_module(f"{__name__}.{each}").__all__)
