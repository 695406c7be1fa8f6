"""Arguments of ``fastn-p2p pair``."""

from pathlib import Path

import pytest

from fastn_p2p.cli import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["tunnel", "bundle"],
            "a code has 4 words, and these are 2. The other machine shows the words: fastn-p2p pair",
        ),
        (["tunnel", "bundle", "sonic", "slight", "bob"], "a code has 4 words, and these are 5"),
        (["tunel", "bundle", "sonic", "slight"], "'tunel' is not one of the words. Did you mean 'tunnel'?"),
        (["tunnel bundle"], "a code has 4 words, and these are 2"),
        (["tunel bundle sonic slight"], "Did you mean 'tunnel'? The other machine shows the words"),
        (["alice", "--as", "bob"], "'alice' and --as 'bob' name two identities"),
        (["--name", "Not A Name"], "'Not A Name' cannot be the name of a peer"),
        (["tunnel", "bundle", "sonic", "slight", "--name", "Not A Name"], "cannot be the name of a peer"),
        (["tunnel-bundle-sonic-slight", "--qr"], "--qr is for the side that shows the words"),
        (["--timeout", "0"], "--timeout must be more than 0 seconds"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_done(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pair", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_without_a_daemon_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pair", "--home", str(tmp_path)]) == 3
    assert "fastn-p2p daemon" in capsys.readouterr().err
