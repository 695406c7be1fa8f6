from __future__ import annotations

from ....console.exit_codes import ExitCode
from ....console.options import HomeOption, JsonOption
from ....console.output import put_json, write_message, write_result
from ...service_options import RootOption, SystemOption, UserOption, scope_of


def run(
    user: UserOption = False,
    system: SystemOption = False,
    root: RootOption = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show whether the daemon's units are installed, enabled and active.

    A unit is `current`, `missing`, `edited`, or `outdated`: written for another version, home or installation. The exit
    code is 7 if one is missing.
    """
    import shlex
    import shutil
    import subprocess

    from ...service_units import find_service

    service = find_service(scope_of(user, system), root, home)
    active = "unknown"
    if root is None and shutil.which("systemctl"):
        command = [*service.systemctl.split(), "is-active", service.name]
        active = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or active
    if json:
        units = {str(unit.path): unit.state for unit in service.units}
        put_json({"service": service.name, "units": units, "enabled": service.is_enabled, "active": active})
    else:
        for unit in service.units:
            write_result(f"{unit.state:<8} {unit.path}")
        write_result(f"{'enabled' if service.is_enabled else 'not enabled'}, {active}")
    if any(unit.state == "missing" for unit in service.units):
        options = ["--system"] if system else []
        options += [f"--{name}={value}" for name, value in (("root", root), ("home", home)) if value is not None]
        write_message(f"Not installed. Next: {shlex.join(['fastn-p2p', 'service', 'install', *options])}")
        raise SystemExit(ExitCode.NOT_FOUND)
