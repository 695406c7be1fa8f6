"""Build backend of the daemon's distribution: setuptools, which in a checkout also names the client that lies beside.

pip asks for the metadata first and resolves dependencies by it. In a checkout that metadata names ``client`` by its
path, so ``pip install .`` needs no index that has the client. A wheel always has the pin of the client's version,
whatever the metadata said: with a path in it, pip would look there again whenever something that needs the daemon is
installed, and fail once the checkout is gone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from setuptools import build_meta  # type: ignore[import-untyped]
from setuptools.build_meta import *  # type: ignore[import-untyped]  # noqa: F403  (the other hooks)

_CLIENT: Final = Path(__file__).resolve().parent / "client"
_PIN: Final = "Requires-Dist: fastn-p2p-client=="


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Any = None) -> str:
    name = build_meta.prepare_metadata_for_build_wheel(metadata_directory, config_settings)
    return _name_client_of_checkout(metadata_directory, name)


def prepare_metadata_for_build_editable(metadata_directory: str, config_settings: Any = None) -> str:
    name = build_meta.prepare_metadata_for_build_editable(metadata_directory, config_settings)
    return _name_client_of_checkout(metadata_directory, name)


def build_wheel(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    return str(build_meta.build_wheel(wheel_directory, config_settings))


def build_editable(wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None) -> str:
    return str(build_meta.build_editable(wheel_directory, config_settings))


def _name_client_of_checkout(metadata_directory: str, name: Any) -> str:
    if _CLIENT.is_dir():  # an sdist has none
        file = Path(metadata_directory, name, "METADATA")
        lines = file.read_text().splitlines()
        reference = f"Requires-Dist: fastn-p2p-client @ {_CLIENT.as_uri()}"
        file.write_text("\n".join(reference if line.startswith(_PIN) else line for line in lines) + "\n")
    return str(name)
