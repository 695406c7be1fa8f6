"""Limits of the local protocol and of the protocol between daemons.

Both sides enforce them. An implementation in another language copies this page. Sizes are bytes and times are seconds,
unless a name says otherwise.
"""

from typing import Final

PROTOCOL_VERSION: Final = 1
"""Newest version of the local protocol that this version speaks. Both sides use the newest that both speak."""
OLDEST_PROTOCOL_VERSION: Final = 1
"""Oldest version of the local protocol that is still spoken. Without a common one there is ``VersionMismatch``."""

# Messages
MAX_HEADER: Final = 64 * 1024
"""Bytes of a header."""
MAX_PAYLOAD: Final = 16 * 1024 * 1024
"""Bytes of a payload."""
MAX_MESSAGE: Final = MAX_PAYLOAD + MAX_HEADER
CORRELATION_ID_MAX: Final = 16
"""Bytes of a correlation id (first frame)."""

# Names
MAX_NAME: Final = 64
"""Characters in the name of an identity, a protocol, an instance or a petname."""
DEFAULT_INSTANCE: Final = "default"
MAX_CALL_ID: Final = 16
"""Bytes of a call id, the idempotency key of a call with ``retry=True``."""
MAX_REQUEST_ID: Final = 64
"""Characters of a request id. A longer one is replaced."""

# Calls
DEFAULT_CALL_TIMEOUT: Final = 10.0
"""Seconds of a call without a timeout of its own."""
MAX_CALL_TIMEOUT: Final = 3600.0
"""Seconds; a longer timeout counts as this one."""
MAX_CALLS_PER_CLIENT: Final = 8192
"""Calls in flight of one program; one more gets ``Overloaded``."""
MAX_CALLS_PER_PEER: Final = 8192
"""Calls in flight from one peer daemon; one more gets ``Overloaded``."""
MAX_CALLS_PER_BINDING: Final = 16384
"""Calls in flight at one binding, from all callers; one more gets ``Overloaded``."""

# Waiting for peers
MAX_WAITS_PER_CLIENT: Final = 1024
"""Peers that one program waits for at the same time; one more gets ``Overloaded``."""

# Sessions
SESSION_WINDOW: Final = 1024 * 1024
"""Bytes of one direction of a session that a process buffers at most."""
MAX_CHUNK: Final = 256 * 1024
"""Bytes of one ``SessionData``."""
CHUNK_COST: Final = 64
"""Bytes of credit that each ``SessionData`` costs beside its own, because many small ones take memory too."""
MAX_INITIAL: Final = 64 * 1024
"""Bytes of a session's initial value."""
MAX_SESSIONS_PER_PEER: Final = 256
"""Open sessions from one peer daemon; one more gets ``Overloaded``."""
MAX_SESSIONS_PER_CLIENT: Final = 1024
"""Open sessions of one program; one more gets ``Overloaded``."""
MAX_SESSIONS_PER_BINDING: Final = 4096
"""Open sessions at one binding, from all callers; one more gets ``Overloaded``."""

# Codes of a session that ends early. A protocol's own codes are smaller.
RESET_CLOSED: Final = 1 << 32
"""Code: the reader has closed the session."""
RESET_FAILED: Final = RESET_CLOSED + 1
"""Code: the handler or the program has failed."""
RESET_LOST: Final = RESET_CLOSED + 2
"""Code: the process or connection at the other end has ended. Programs see ``ConnectionLost``."""
MAX_RESET_CODE: Final = RESET_CLOSED - 1
"""Largest code of a protocol's own."""

# Local sockets
MAX_CLIENTS: Final = 4096
"""Connections of all programs to one mailbox, or half of its process's limit of open files if that is less. One more
gets ``Overloaded``."""
MAX_CLIENTS_PER_PROGRAM: Final = 128
"""Connections of one process to one mailbox, unless an option of the daemon says otherwise. One more gets
``Overloaded``."""
BACKLOG: Final = 1024
"""Connections to one mailbox that wait to be accepted."""
HANDSHAKE_IVL_MS: Final = 500
"""Milliseconds for a ZMTP handshake."""
SEND_QUEUE: Final = 20_000
"""Messages queued for one local connection; one more gets ``Overloaded``."""
SEND_QUEUE_BYTES: Final = 64 * 1024 * 1024
"""Bytes queued for one local connection; with more, the next message gets ``Overloaded``."""
MAX_GROUP: Final = 64
"""Messages in one ZeroMQ message."""
MAX_GROUP_BYTES: Final = 2 * MAX_MESSAGE
"""Bytes of all frames of one ZeroMQ message; more ends the connection."""
UNIX_PATH_MAX: Final = 107
"""Bytes of a Unix socket's path: ``sun_path`` without its final zero, unix(7)."""
