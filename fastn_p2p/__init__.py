"""fastn-p2p: peer-to-peer calls and streams for the programs of this machine.

This package has the command line and the built-in protocols. It also re-exports the client library:
``from fastn_p2p import Client`` is ``from fastn_p2p_client import Client``. The client library is imported at the first
use of one of its names.

Layout
------

``cli``          the program ``fastn-p2p`` and its commands
``console``      code that commands share: output, exit codes, options, JSON
``protocols``    the built-in protocols: ``echo``, ``tunnel``, ``web``, ``chat``, ``files``, ``mail``
``demo``         ``fastn-p2p demo``: its steps, its daemons and its output
``relay``        ``fastn-p2p relay``: relay, directory and address discovery in one process
``pytest_plugin``  fixture of pytest: two connected daemons
``concurrency``  run coroutines together
``store``        interface of the databases that protocols keep their state in
``postgres``     the same in PostgreSQL
``sqlite_store`` a SQLite database on a thread of its own, with group commit

The other packages, in the direction in which they may import each other: ``fastn_p2p_supervisor`` starts and watches
the processes, ``fastn_p2p_actors`` runs in them, ``fastn_p2p_client`` is the client library.
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
