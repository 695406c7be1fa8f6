from __future__ import annotations

from ....console.options import HomeOption, JsonOption
from ....console.output import put_json, write_result
from ...service_options import RootOption, SystemOption, UserOption, scope_of


def run(
    user: UserOption = False,
    system: SystemOption = False,
    root: RootOption = None,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Show whether the daemon's units are installed, enabled and active.

    A unit is `current`, `missing`, `edited`, or `outdated`: written for another version, home or installation.
    """
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
        return
    for unit in service.units:
        write_result(f"{unit.state:<8} {unit.path}")
    write_result(f"{'enabled' if service.is_enabled else 'not enabled'}, {active}")
