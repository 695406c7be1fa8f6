from __future__ import annotations

from ....console.exit_codes import CommandFailed, ExitCode
from ....console.options import HomeOption, JsonOption
from ....console.output import put_json, write_message, write_result
from ...service_options import ForceOption, RootOption, SystemOption, UserOption, scope_of


def run(
    user: UserOption = False,
    system: SystemOption = False,
    root: RootOption = None,
    force: ForceOption = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Remove the units that `fastn-p2p service install` has written.

    The service must be disabled first. The daemon's home, drop-ins and users stay.
    """
    from ...service_units import find_service, require_unedited

    service = find_service(scope_of(user, system), root, home)
    if not force:
        require_unedited(service)
        if service.is_enabled:
            raise CommandFailed(
                f"the service is enabled: {service.systemctl} disable {'' if root else '--now '}{service.name}",
                ExitCode.EXISTS,
                "service-enabled",
            )
    present = [unit.path for unit in service.units if unit.state != "missing"]
    for path in present:
        path.unlink()
    if json:
        put_json({"removed": [str(path) for path in present]})
        return
    for path in present:
        write_result(f"removed {path}")
    if not present:
        write_message("There is nothing to remove.")
    elif root is None:
        write_message(f"Next: {service.systemctl} daemon-reload")
