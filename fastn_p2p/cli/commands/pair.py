from __future__ import annotations

from pathlib import Path
from typing import Annotated

from fastn_p2p_client.names import check_name

from ...console.exit_codes import CommandLineError
from ...console.options import HomeOption, JsonOption
from ...console.output import put_json, write_message, write_result
from ...console.parameters import Argument, Option


def run(
    words: Annotated[
        list[str] | None,
        Argument(
            metavar="[IDENTITY | WORD WORD WORD WORD | -]",
            help="Nothing, or the identity, to show new words. The four words that the other machine shows; - reads "
            "them from standard input.",
            complete="words",
        ),
    ] = None,
    name: Annotated[
        str, Option("--name", metavar="NAME", help="Petname of the peer. By default what its owner calls it.")
    ] = "",
    identity: Annotated[
        str,
        Option(
            "--as",
            "--identity",
            metavar="NAME",
            help="Own identity. Needed if several are online.",
            complete="identity",
        ),
    ] = "",
    qr: Annotated[
        bool | None,
        Option("--qr/--no-qr", help="Show the words as a QR code, too.  [default: on a terminal]"),
    ] = None,
    timeout: Annotated[
        float | None,
        Option(
            "--timeout",
            metavar="SECONDS",
            help="How long to wait for the other machine.  [default: 600 when showing words, 60 when typing them]",
        ),
    ] = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Pair with a peer by four words: each side adds the other to its address book.

    One side runs `fastn-p2p pair` and tells the words to the other, which runs `fastn-p2p pair WORD WORD WORD WORD`.
    The first four letters of each word are enough. The words are good for ten minutes and one attempt. Both sides see
    a fingerprint: compare it, to be sure that nobody stands between. If anything fails, nothing is stored.
    """
    if timeout is not None and not timeout > 0:
        raise CommandLineError("--timeout must be more than 0 seconds")
    if name:
        check_name(name, "a peer")
    arguments = words or []
    if arguments == ["-"]:
        arguments = [_read_words()]
    is_host = len(arguments) < 2 and not _is_code(arguments)
    if is_host:
        if arguments and identity and arguments[0] != identity:
            raise CommandLineError(
                f"{arguments[0]!r} and --as {identity!r} name two identities. The words of the other machine are four"
            )
        _show(home, identity or "".join(arguments), name, 600.0 if timeout is None else timeout, qr=qr, json=json)
    else:
        if qr:
            raise CommandLineError("--qr is for the side that shows the words. Leave it out here")
        _join(home, arguments, identity, name, 60.0 if timeout is None else timeout, json=json)


def _is_code(arguments: list[str]) -> bool:
    """Return whether one argument has several words, so that it is no name of an identity."""
    if len(arguments) != 1:
        return False
    return len(arguments[0].split()) > 1 or len(arguments[0].replace("-", " ").replace(",", " ").split()) == 4


def _read_words() -> str:
    """Return a line of standard input. On a terminal, Tab completes words."""
    import sys

    if not sys.stdin.isatty():
        return sys.stdin.readline()
    import readline

    from fastn_p2p_actors.pairing.code import matching_words

    readline.set_completer(lambda text, number: ([f"{word} " for word in matching_words(text)] + [None])[number])
    readline.set_completer_delims(" -,")
    readline.parse_and_bind("tab: complete")
    return input("Words of the other machine: ")


def _show(home: Path | None, identity: str, name: str, seconds: float, *, qr: bool | None, json: bool) -> None:
    import sys
    import time

    from fastn_p2p_actors.pairing.code import new_code
    from fastn_p2p_actors.pairing.host import PairingHost
    from fastn_p2p_actors.pairing.rendezvous import LIFETIME

    from ...console.formatting import expiry_time
    from ..pairing import finish, run_pairing

    code = new_code()
    expires = int(time.time() + min(seconds, LIFETIME))

    def on_shown(points: list[str], problems: dict[str, str]) -> None:
        if json:
            put_json({"words": code, "expires": expires})
        else:
            write_result(code)
            if qr or (qr is None and sys.stdout.isatty()):
                from ..qr_code import qr_lines

                write_result("\n".join(qr_lines(code)))
            write_message(f"On the other machine: fastn-p2p pair {code}")
            write_message(f"Good for one attempt, until {expiry_time(expires)}. Found by: {', '.join(points)}.")
        for point, reason in problems.items():
            write_message(f"Not found by {point}: {reason}")
        if points == ["this machine"]:
            write_message("Network mode local: only daemons on this machine find these words.")

    paired = run_pairing(
        home,
        lambda found, use: PairingHost(found, use, code, identity=identity, name=name, seconds=seconds).run(on_shown),
    )
    finish(paired, json=json)


def _join(home: Path | None, arguments: list[str], identity: str, name: str, seconds: float, *, json: bool) -> None:
    from fastn_p2p_actors.pairing.code import InvalidCode, read_code
    from fastn_p2p_actors.pairing.joiner import PairingJoiner

    from ..pairing import finish, run_pairing

    try:
        code = read_code(arguments)
    except InvalidCode as error:
        end = "" if str(error).endswith("?") else "."
        raise CommandLineError(f"{error}{end} The other machine shows the words: fastn-p2p pair") from None
    paired = run_pairing(
        home,
        lambda found, use: PairingJoiner(found, use, code, identity=identity, name=name, seconds=seconds).run(),
    )
    finish(paired, json=json)
