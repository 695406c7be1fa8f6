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
- ``control``: between a program and the gateway: the first messages, and the list of all. By what they are about:
  ``identities``, ``bindings``, ``peers``, ``access``, ``invitations``, ``traces``, ``status``, ``maintenance``.
- ``data``: between a program or identity process and the network process.
"""

from .access import *
from .base import *
from .bindings import *
from .control import *
from .data import *
from .identities import *
from .invitations import *
from .maintenance import *
from .peers import *
from .status import *
from .traces import *
