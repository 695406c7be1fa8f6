"""fastn-p2p: calls and streams between the programs of this machine and those of any other.

This package is the command line, and everything a program needs: ``from fastn_p2p import Client`` is
``from fastn_p2p_client import Client``. Importing it loads nothing; the client is loaded when it is first asked for.

Layout
------

``cli``         the commands, and how each of them can end; ``exits`` has the table of exit codes
``commands``    one module per command, each with a function ``run``
``options``     options that several commands have
``values``      JSON that people type and that commands print
``terminal``    what goes to standard output and what to standard error
``asking``      one question to the daemon, one answer
``observing``   ``fastn-p2p status``: asks the gateway, else reads ``account``, the supervisor's own file
``dashboard``   how a ``Status`` looks in a terminal; ``narrow_dashboard``, ``live_status`` for --watch
``demo``        ``fastn-p2p demo``: its story, the daemons it runs and what it shows
``streaming``   ``fastn-p2p stream``: a session joined to standard input and output, which ``piping`` reads and writes
``forwarding``  ``fastn-p2p forward``: connections become sessions; ``troubles`` says what does not work
``splicing``    a connection joined to a session, for both ends of a tunnel; ``sockets`` and ``addresses`` are under it
``concurrency`` work that is done at once, and ends together
``protocols``   the protocols that come with the daemon, one per module
``chat``        what the protocol ``Chat`` and the command ``fastn-p2p chat`` are made of
``files``       what the protocol ``FileTransfer`` and the commands ``fastn-p2p files`` are made of
``mail``        what the protocol ``Mail`` and the commands ``fastn-p2p mail`` are made of

The other packages, in the direction in which they may import each other: ``fastn_p2p_supervisor`` starts and watches
the processes, ``fastn_p2p_actors`` is what runs in them, ``fastn_p2p_client`` is the vocabulary and the client.
"""

from typing import TYPE_CHECKING, Any, Final

__version__: Final = "0.1.0"

if TYPE_CHECKING:
    from fastn_p2p_client import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        import fastn_p2p_client

        if name == "__all__":
            return [*fastn_p2p_client.__all__, "__version__"]
        if name in fastn_p2p_client.__all__:
            return getattr(fastn_p2p_client, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return [*globals(), *__getattr__("__all__")]
