"""Contents of the two wheels, built from the work tree."""

import io
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from deploy.distributions import repack
from tests.requirements import FOLDER, pins

ROOT = pathlib.Path(__file__).resolve().parents[2]
BESIDE = re.compile(r"[^/]+\.(dist-info|data)/")
"""Files of a wheel beside its packages."""
PACKAGES = ["fastn_p2p", "fastn_p2p_actors", "fastn_p2p_client", "fastn_p2p_supervisor"]


def run(*command: str | pathlib.Path) -> str:
    """The command's standard output; the test fails with all of its output if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def pip(*arguments: str | pathlib.Path) -> str:
    return run(sys.executable, "-m", "pip", "--disable-pip-version-check", "-q", *arguments)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A copy of what is packed, as a build writes into its tree."""
    source = tmp_path_factory.mktemp("source")
    skip = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "dist")
    for folder in ("actors", "client", "fastn_p2p", "supervisor"):
        shutil.copytree(ROOT / folder, source / folder, ignore=skip)
    for file in ROOT.glob("*"):
        if file.is_file():
            shutil.copy(file, source)
    return source


@pytest.fixture(scope="module")
def wheels(source: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """The two wheels by distribution."""
    out = tmp_path_factory.mktemp("wheels")
    pip("wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", out, source / "client", source)
    return {file.name.split("-")[0]: file for file in out.glob("*.whl")}


def wheel_files(wheel: pathlib.Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def wheel_metadata(wheel: pathlib.Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = (path for path in archive.namelist() if path.endswith(f".dist-info/{name}"))
        return archive.read(path).decode()


def test_two_wheels_for_any_platform(wheels: dict[str, pathlib.Path]) -> None:
    assert sorted(wheels) == ["fastn_p2p", "fastn_p2p_client"]
    assert all(wheel.name.endswith("-0.1.0-py3-none-any.whl") for wheel in wheels.values())


def test_no_top_level_name_but_ours(wheels: dict[str, pathlib.Path]) -> None:
    """No other distribution has a package of these names, though one is called ``supervisor``."""
    top_levels = {
        name: sorted({path.split("/")[0] for path in wheel_files(wheel) if not BESIDE.match(path)})
        for name, wheel in wheels.items()
    }
    assert top_levels == {
        "fastn_p2p": ["fastn_p2p", "fastn_p2p_actors", "fastn_p2p_supervisor"],
        "fastn_p2p_client": ["fastn_p2p_client"],
    }


def test_wheels_hold_every_module_of_the_tree(wheels: dict[str, pathlib.Path]) -> None:
    packed = {path for wheel in wheels.values() for path in wheel_files(wheel) if path.endswith(".py")}
    homes = [ROOT, ROOT / "actors", ROOT / "client", ROOT / "supervisor"]
    in_tree = {
        str(file.relative_to(home))
        for home in homes
        for package in PACKAGES
        for file in home.joinpath(package).rglob("*.py")
    }
    assert packed == in_tree


def test_the_daemon_brings_its_units(wheels: dict[str, pathlib.Path]) -> None:
    """``fastn-p2p service install`` writes them."""
    in_tree = ROOT / "deploy" / "systemd"
    units = {f"fastn_p2p/cli/systemd/{file.relative_to(in_tree)}" for file in in_tree.rglob("*") if file.is_file()}
    assert units <= set(wheel_files(wheels["fastn_p2p"]))


def test_the_daemon_brings_its_manual_pages(wheels: dict[str, pathlib.Path]) -> None:
    """They go to ``share/man/man1`` of the environment, where ``man`` and pipx look."""
    pages = {f"share/man/man1/{file.name}" for file in (ROOT / "fastn_p2p/cli/man").iterdir()}
    packed = [path for path in wheel_files(wheels["fastn_p2p"]) if path.endswith(".1")]
    assert {path.partition(".data/data/")[2] for path in packed} == pages
    assert len(packed) == len(pages) > 1


def test_packages_are_typed(wheels: dict[str, pathlib.Path]) -> None:
    packed = {path for wheel in wheels.values() for path in wheel_files(wheel)}
    assert {f"{package}/py.typed" for package in PACKAGES} <= packed


def test_client_needs_only_pyzmq_and_msgspec(wheels: dict[str, pathlib.Path]) -> None:
    metadata = wheel_metadata(wheels["fastn_p2p_client"], "METADATA").splitlines()
    needs = sorted(
        line.removeprefix("Requires-Dist: ")
        for line in metadata
        if line.startswith("Requires-Dist") and "extra ==" not in line
    )
    assert [need.split("<")[0].split(">")[0] for need in needs] == ["msgspec", "pyzmq"]


def test_the_daemon_pins_the_client_it_was_built_with(wheels: dict[str, pathlib.Path]) -> None:
    metadata = wheel_metadata(wheels["fastn_p2p"], "METADATA")
    assert "Requires-Dist: fastn-p2p-client==0.1.0\n" in metadata
    assert "License-Expression: UPL-1.0\n" in metadata


def test_every_pinned_version_is_documented() -> None:
    """`docs/dependencies.md` lists what `requirements/` installs: the same packages, the same versions."""
    pinned = {(pin.name, pin.version) for file in FOLDER.glob("*.txt") for pin in pins(file)}
    table = (ROOT / "docs" / "dependencies.md").read_text().splitlines()
    documented: list[tuple[str, ...]] = []
    of_packages = False
    for row in table:
        cells = [cell.strip() for cell in row.split("|")[1:3]]
        if not row.startswith("| "):
            of_packages = False
        elif cells == ["package", "version"]:
            of_packages = True
        elif of_packages and cells[0] != "---":
            documented.append(tuple(cells))
    assert set(documented) == pinned


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.txt")), ids=lambda file: file.stem)
def test_every_pin_has_the_hashes_of_its_artifacts(file: pathlib.Path) -> None:
    """So pip installs what was tested. ``make requirements`` writes them."""
    assert [pin.name for pin in pins(file) if "--hash=sha256:" not in pin.text] == []
    assert "://" not in file.read_text(), "which index packages come from is a matter of the machine"


def test_pip_takes_the_client_of_a_checkout(source: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The metadata by which pip resolves dependencies names it; the wheel does not, as the test above says."""
    hook = "import build_backend, sys; build_backend.prepare_metadata_for_build_wheel(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", hook, tmp_path], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (metadata,) = tmp_path.glob("*.dist-info/METADATA")
    assert f"Requires-Dist: fastn-p2p-client @ {(source / 'client').as_uri()}\n" in metadata.read_text()


def test_sdists_of_other_machines_and_times_are_the_same(tmp_path: pathlib.Path) -> None:
    contents = []
    for time, mode, owner in ((1, 0o600, "ann"), (2, 0o664, "ben")):
        file = tmp_path / f"{owner}.tar.gz"
        with tarfile.open(file, "w:gz") as archive:
            for name in ("b", "a")[:: 1 if time == 1 else -1]:
                entry = tarfile.TarInfo(f"x-1/{name}")
                entry.size, entry.mtime, entry.mode, entry.uname = 3, time, mode, owner
                archive.addfile(entry, io.BytesIO(b"abc"))
        repack(file, 1_000_000_000)
        contents.append(file.read_bytes())
    assert contents[0] == contents[1]


def test_entry_points(wheels: dict[str, pathlib.Path]) -> None:
    entry_points = wheel_metadata(wheels["fastn_p2p"], "entry_points.txt")
    assert "fastn-p2p = fastn_p2p.__main__:main" in entry_points
    for protocol in ("Chat = fastn_p2p.protocols.chat.protocol:Chat", "Echo = fastn_p2p.protocols.echo:Echo"):
        assert f"\n{protocol}\n" in entry_points.split("[fastn_p2p.protocols]")[1]
