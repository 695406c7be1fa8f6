from __future__ import annotations

from typing import Annotated

from ....console.exit_codes import CommandLineError
from ....console.options import HomeOption, JsonOption, NameArgument
from ....console.output import put_json, write_lines, write_message, write_result
from ....console.parameters import Option


def run(
    name: NameArgument,
    replica: Annotated[
        str,
        Option("--name", metavar="REPLICA", help="Name for the other daemon. By default that of its machine."),
    ] = "",
    timeout: Annotated[
        float, Option("--timeout", metavar="SECONDS", help="How long to wait for the other daemon.")
    ] = 600.0,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Let another daemon serve an identity, too. Shows four words, and waits for that daemon.

    Run `fastn-p2p replica join WORD WORD WORD WORD` on the other machine. The words are good for ten minutes and one
    attempt. The key stays here: the vault signs delegations for the other daemon, each for a day, while this daemon
    runs. Both sides see a fingerprint: compare it.
    """
    import time

    from fastn_p2p_actors.pairing.code import new_code
    from fastn_p2p_actors.pairing.host import PairingHost
    from fastn_p2p_actors.pairing.rendezvous import LIFETIME
    from fastn_p2p_actors.pairing.replica_books import ReplicaInviteBook

    from ....console.formatting import expiry_time
    from ...pairing import run_pairing

    if not timeout > 0:
        raise CommandLineError("--timeout must be more than 0 seconds")
    code = new_code()
    expires = int(time.time() + min(timeout, LIFETIME))

    def on_shown(points: list[str], problems: dict[str, str]) -> None:
        if json:
            put_json({"words": code, "expires": expires})
        else:
            write_result(code)
            write_message(f"On the other machine: fastn-p2p replica join {code}")
            write_message(f"Good for one attempt, until {expiry_time(expires)}. Found by: {', '.join(points)}.")
        for point, reason in problems.items():
            write_message(f"Not found by {point}: {reason}")

    paired = run_pairing(
        home,
        lambda found, use: PairingHost(
            found, use, code, identity=name, name="", seconds=timeout, book=ReplicaInviteBook(found, replica)
        ).run(on_shown),
        "replica invite",
    )
    if json:
        put_json({"identity": name, "replica": paired.name, "fingerprint": paired.fingerprint})
        return
    write_lines(
        f"{paired.name} serves {name} from now on, with delegations of this daemon's vault.\n"
        f"Fingerprint: {paired.fingerprint}. The other machine shows the same. If it does not: "
        f"fastn-p2p replica remove {name} {paired.name} --now"
    )
    write_result(f"{name}\t{paired.name}")
