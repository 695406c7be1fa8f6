from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from ....console.exit_codes import CommandLineError
from ....console.options import HomeOption, JsonOption
from ....console.output import put_json, write_message, write_result
from ....console.parameters import Argument, Option

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from fastn_p2p_actors.pairing.rendezvous import NetworkUse
    from fastn_p2p_actors.pairing.result import PairedPeer
    from fastn_p2p_client.home import Home


def run(
    words: Annotated[
        list[str],
        Argument(
            metavar="WORD WORD WORD WORD | -",
            help="The four words that `fastn-p2p replica invite` shows; - reads them from standard input.",
            complete="words",
        ),
    ],
    name: Annotated[
        str,
        Option("--name", metavar="NAME", help="Name of the identity here. By default its name at its owner's daemon."),
    ] = "",
    timeout: Annotated[
        float, Option("--timeout", metavar="SECONDS", help="How long to search for the owner's daemon.")
    ] = 60.0,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Serve an identity of another daemon here, as its replica.

    The identity calls and is called here like any other, with bindings of its own. Its key stays at its owner's daemon,
    whose vault signs a delegation for this one, and renews it. The first four letters of each word are enough.
    """
    import sys

    from fastn_p2p_actors.pairing.code import InvalidCode, read_code
    from fastn_p2p_actors.pairing.joiner import PairingJoiner
    from fastn_p2p_actors.pairing.replica_books import ReplicaJoinBook

    from ...pairing import run_pairing

    if not timeout > 0:
        raise CommandLineError("--timeout must be more than 0 seconds")
    try:
        code = read_code([sys.stdin.readline()] if words == ["-"] else words)
    except InvalidCode as error:
        end = "" if str(error).endswith("?") else "."
        raise CommandLineError(f"{error}{end} The owner's machine shows the words: fastn-p2p replica invite") from None
    books: list[ReplicaJoinBook] = []

    def join(found: Home, use: NetworkUse) -> Coroutine[Any, Any, PairedPeer]:
        books.append(ReplicaJoinBook(found, name))
        return PairingJoiner(found, use, code, identity="", name="", seconds=timeout, book=books[0]).run()

    paired = run_pairing(home, join, "replica invite")
    problem = books[0].problem
    if json:
        put_json({"identity": paired.name, "id52": paired.id52, "fingerprint": paired.fingerprint, "problem": problem})
        return
    if problem:
        write_message(f"{paired.name} comes online as soon as its owner's daemon answers: {problem}")
    else:
        write_message(f"{paired.name} is online here, as a replica.")
    write_message(
        f"Fingerprint: {paired.fingerprint}. The owner's machine shows the same. If it does not: "
        f"fastn-p2p replica leave {paired.name}"
    )
    write_result(f"{paired.name}\t{paired.id52}")
