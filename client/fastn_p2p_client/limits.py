"""The limits of the client protocol and the wire protocol, in one place.

Both sides enforce them; an implementation in another language copies this page.
Sizes are bytes, times are seconds unless a name says otherwise.
"""

from typing import Final

PROTOCOL_VERSION: Final = 1
"""Version of the client protocol this library speaks; the daemon answers another one with ``VersionMismatch``."""

# Messages
MAX_HEADER: Final = 64 * 1024
MAX_PAYLOAD: Final = 16 * 1024 * 1024
MAX_MESSAGE: Final = MAX_PAYLOAD + MAX_HEADER
CORRELATION_ID_MAX: Final = 16
"""Longest correlation id (first frame) that a client may choose."""

# Names
MAX_NAME: Final = 64
"""Characters in the name of an identity, a protocol, an instance or a petname."""
DEFAULT_INSTANCE: Final = "default"
MAX_CALL_ID: Final = 16
"""Bytes of the id of a call that may be sent again."""

# Calls
DEFAULT_CALL_TIMEOUT: Final = 10.0
MAX_CALL_TIMEOUT: Final = 3600.0
MAX_CALLS_PER_CLIENT: Final = 8192
"""Calls in flight of one program on one daemon; one more gets ``Overloaded``."""
MAX_CALLS_PER_PEER: Final = 8192
"""Calls in flight from one other daemon; one more gets ``Overloaded``."""
MAX_CALLS_PER_BINDING: Final = 16384
"""Calls in flight at one binding, from everywhere; one more gets ``Overloaded``."""

# Waiting for peers
MAX_WAITS_PER_CLIENT: Final = 1024
"""Peers that one program waits for at a time; one more gets ``Overloaded``."""

# Sessions
SESSION_WINDOW: Final = 1024 * 1024
"""Bytes of one direction of a session that a process takes before they have been consumed."""
MAX_CHUNK: Final = 256 * 1024
"""Bytes in one chunk of a session."""
CHUNK_COST: Final = 64
"""What a chunk takes of the credit beside its bytes: many small ones take memory too."""
MAX_INITIAL: Final = 64 * 1024
"""Bytes of a session's initial data."""
MAX_SESSIONS_PER_PEER: Final = 256
"""Sessions that one other daemon has opened at a time; one more gets ``Overloaded``."""
MAX_SESSIONS_PER_CLIENT: Final = 1024
"""Sessions of one program at a time; one more gets ``Overloaded``."""
MAX_SESSIONS_PER_BINDING: Final = 4096
"""Sessions at one binding, from everywhere; one more gets ``Overloaded``."""

# Codes of a session that ends early. Protocols use those below.
RESET_CLOSED: Final = 1 << 32
"""Whoever was to read has closed the session."""
RESET_FAILED: Final = RESET_CLOSED + 1
"""The handler, or the program, has failed."""
RESET_LOST: Final = RESET_CLOSED + 2
"""The process or the connection behind the other side is gone; seen as ``ConnectionLost``."""
MAX_RESET_CODE: Final = RESET_CLOSED - 1
"""The largest code of a protocol's own."""

# Local sockets
MAX_CLIENTS: Final = 4096
"""Connections of all programs to one mailbox, or half of the files that its process may open if that is less; one more
gets ``Overloaded``."""
MAX_CLIENTS_PER_PROGRAM: Final = 128
"""Connections of one process to one mailbox, unless the daemon was started with another number; one more gets
``Overloaded``."""
BACKLOG: Final = 1024
"""Connections to one mailbox that wait to be accepted."""
HANDSHAKE_IVL_MS: Final = 500
SEND_QUEUE: Final = 20_000
"""Messages queued towards one peer of a local socket; one more gets ``Overloaded``."""
SEND_QUEUE_BYTES: Final = 64 * 1024 * 1024
"""Bytes queued towards one peer of a local socket; then also one more message gets ``Overloaded``."""
MAX_GROUP: Final = 64
"""Messages in one ZeroMQ message."""
MAX_GROUP_BYTES: Final = 2 * MAX_MESSAGE
"""Bytes of all frames of one ZeroMQ message; more ends the connection."""
UNIX_PATH_MAX: Final = 107
"""Bytes in a Unix socket path (``sun_path`` less its final zero, unix(7))."""
