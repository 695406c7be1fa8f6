"""Code cannot widen its next sandbox with links in directories to which it may write."""

from __future__ import annotations

from pathlib import Path

from fastn_p2p_actors.runtime.sandbox.granted_paths import without_replaceable
from fastn_p2p_client.permissions import Permissions


def test_paths_below_a_writable_one_get_no_rule_of_their_own(tmp_path: Path) -> None:
    box = tmp_path / "box"
    box.mkdir()
    (box / "key").symlink_to("/etc/passwd")
    (tmp_path / "alias").symlink_to(box)
    paths = [box / "key", tmp_path / "alias/key", box / "deep/er", tmp_path / "other"]
    kept = without_replaceable(Permissions(read=paths, write=[box, *paths], programs=paths), ())
    assert list(kept.read) == list(kept.programs) == [tmp_path / "other"]
    assert list(kept.write) == [box, tmp_path / "other"]


def test_paths_below_its_own_directory_get_none_either(tmp_path: Path) -> None:
    asked = Permissions(read=[tmp_path / "own/key", "/srv"], connect=["*:443"], programs=[])
    assert without_replaceable(asked, (tmp_path / "own",)) == Permissions(
        read=["/srv"], write=[], connect=["*:443"], programs=[]
    )
