"""fastn-p2p: calls and streams between the programs of this machine and those of any other.

This package is the command line, and everything a program needs: ``from fastn_p2p import Client`` is
``from fastn_p2p_client import Client``. Importing it loads nothing; the client is loaded when it is first asked for.

Layout
------

``cli``          the program ``fastn-p2p``: its commands, ``status``, ``stream``
``console``      what commands share: output, exit codes, options, JSON
``protocols``    the protocols that come with the daemon: ``echo``, ``tunnel``, ``chat``, ``files``, ``mail``
``demo``         ``fastn-p2p demo``: its story, the daemons it runs and what it shows
``concurrency``  work that is done at once, and ends together

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
