"""Units for systemd that start this installation of the daemon: their text, their place, and who wrote what is there.

The first line of a file that ``fastn-p2p service install`` has written holds a hash of the rest. So a file that its
owner has edited is told from one of an earlier version, which may be replaced.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal, NamedTuple

from ..console.exit_codes import CommandFailed, CommandLineError, ExitCode

Scope = Literal["user", "system"]
UnitState = Literal["missing", "current", "outdated", "edited"]

_MARK: Final = "# Written by `fastn-p2p service install`; change it with `systemctl edit`. sha256: "
_HIDDEN: Final = ("/home", "/root", "/run/user")
"""Directories that the unit of the system hides from the daemon: ProtectHome=yes."""


class UnitFile(NamedTuple):
    """A file of a service: where it belongs, and its text for this installation."""

    path: Path
    text: str

    @property
    def state(self) -> UnitState:
        """State of the file at the path: ``edited`` means that something else than this command wrote it last."""
        try:
            found = self.path.read_text()
        except FileNotFoundError:
            return "missing"
        except UnicodeDecodeError:
            return "edited"
        if found == self.text:
            return "current"
        head, _, rest = found.partition("\n")
        return "outdated" if head == _mark(rest) else "edited"


class Service(NamedTuple):
    """The daemon as a service of the user, or of the system with a user for each process."""

    scope: Scope
    root: Path | None
    name: str
    units: tuple[UnitFile, ...]

    @property
    def systemctl(self) -> str:
        """How to call systemctl for this service."""
        options = "--user" if self.scope == "user" else ""
        return " ".join(filter(None, ("systemctl", options, f"--root={self.root}" if self.root else "")))

    @property
    def is_enabled(self) -> bool:
        """True if systemd starts the service by itself."""
        target = "default" if self.scope == "user" else "multi-user"
        return self.units[0].path.with_name(f"{target}.target.wants").joinpath(f"{self.name}.service").is_symlink()


def find_service(scope: Scope, root: Path | None, home: Path | None) -> Service:
    """Return the service for this installation.

    Args:
        scope: ``user`` or ``system``.
        root: directory that stands for ``/``; None for ``/`` itself.
        home: the daemon's home directory; None for that of the environment.

    Raises:
        CommandLineError: the daemon of the system cannot have this home.
        CommandFailed: the service manager of the system could not start this installation, or must not.
    """
    if scope == "user":
        home = home or (Path(os.environ["FASTN_HOME"]) if os.environ.get("FASTN_HOME") else None)
        config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        name, folder = "fastn-p2p", config / "systemd/user"
        texts = {folder / "fastn-p2p.service": _with_home(_with_command(_read("fastn-p2p.service")), home)}
    else:
        if home is not None:
            raise CommandLineError("--home: the daemon of the system has its home below /var/lib, as its unit says")
        _check_system_installation(Path(sys.prefix), root)
        name = "fastn-p2p-separate"
        texts = {
            Path("/etc/systemd/system/fastn-p2p-separate.service"): _with_command(_read("fastn-p2p-separate.service")),
            Path("/etc/sysusers.d/fastn-p2p.conf"): _read("sysusers.d/fastn-p2p.conf"),
        }
    return Service(
        scope,
        root,
        name,
        tuple(UnitFile(_below(root, path), f"{_mark(text)}\n{text}") for path, text in texts.items()),
    )


def write_unit(unit: UnitFile) -> None:
    """Write the file so that a reader finds the old text or the new one."""
    unit.path.parent.mkdir(parents=True, exist_ok=True)
    temporary = unit.path.with_name(f".{unit.path.name}.{os.getpid()}")
    temporary.write_text(unit.text)
    temporary.chmod(0o644)
    temporary.replace(unit.path)


def require_unedited(service: Service) -> None:
    """Check that nobody but this command has written what is there.

    Raises:
        CommandFailed: somebody has; ``--force`` overrides that.
    """
    for unit in service.units:
        if unit.state == "edited":
            raise CommandFailed(
                f"{unit.path} was edited, or written by something else. "
                f"Keep changes with `{service.systemctl} edit {service.name}`, and overwrite or remove it with --force",
                ExitCode.EXISTS,
                "unit-edited",
                path=str(unit.path),
            )


def command_of_this_installation() -> list[str]:
    """Return the words that start ``fastn-p2p`` in this environment, whatever the PATH."""
    script = Path(sys.executable).with_name("fastn-p2p")
    return [str(script)] if script.exists() else [sys.executable, "-m", "fastn_p2p"]


def quote(word: str) -> str:
    """Return a word as a unit file has it: ``%`` and ``$`` are no specifiers, and blanks do not separate."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return escaped if re.fullmatch(r"[\w./@:+,=%$~-]+", escaped) else f'"{escaped}"'


def _read(name: str) -> str:
    """Return the text of a unit without the comment that says how to install it."""
    text = files("fastn_p2p.cli").joinpath("systemd", name).read_text()
    return re.sub(r"\A(?:#.*\n)+\n?", "", text)


def _with_command(text: str) -> str:
    command = " ".join(map(quote, command_of_this_installation()))
    return re.sub(r"^ExecStart=\S+", lambda _: f"ExecStart={command}", text, count=1, flags=re.MULTILINE)


def _with_home(text: str, home: Path | None) -> str:
    if home is None:
        return text
    variable = quote(f"FASTN_HOME={home.absolute()}").replace("$$", "$")  # $ has no meaning in Environment=
    return text.replace("\nExecStart=", f"\nEnvironment={variable}\nExecStart=", 1)


def _check_system_installation(prefix: Path, root: Path | None) -> None:
    advice = "Install into an environment of root, such as /opt/fastn-p2p, and use that one's fastn-p2p"
    if any(prefix.is_relative_to(hidden) for hidden in _HIDDEN):
        raise CommandFailed(
            f"{prefix} is hidden from services of the system. {advice}", ExitCode.USAGE, "installation-hidden"
        )
    if root is None and os.geteuid() == 0 and prefix.stat().st_uid != 0:
        raise CommandFailed(
            f"{prefix} belongs to another user, who could replace what root starts. {advice}",
            ExitCode.DENIED,
            "installation-not-of-root",
        )


def _mark(rest: str) -> str:
    return f"{_MARK}{hashlib.sha256(rest.encode()).hexdigest()}"


def _below(root: Path | None, path: Path) -> Path:
    return path if root is None else root.absolute() / path.relative_to("/")
