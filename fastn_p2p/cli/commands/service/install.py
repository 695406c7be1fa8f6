from __future__ import annotations

from ....console.options import HomeOption, JsonOption
from ....console.output import put_json, write_message, write_result
from ...service_options import ForceOption, RootOption, SystemOption, UserOption, require_systemd, scope_of


def run(
    user: UserOption = False,
    system: SystemOption = False,
    root: RootOption = None,
    force: ForceOption = False,
    json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Write the units of systemd that start the daemon of this installation.

    Prints what it changes. It neither enables nor starts anything: it prints the commands that do. Units of an earlier
    version are replaced, and edited ones only with --force.
    """
    from difflib import unified_diff

    from ...service_units import find_service, require_unedited, write_unit

    scope = scope_of(user, system)
    require_systemd(root)
    service = find_service(scope, root, home)
    if not force:
        require_unedited(service)
    changed = []
    for unit in service.units:
        state = unit.state
        before = "" if state == "missing" else unit.path.read_text(errors="replace")
        if state != "current":
            write_unit(unit)
            changed.append(str(unit.path))
        if not json:
            write_result(f"{'unchanged' if state == 'current' else 'wrote'} {unit.path}")
        if before and state != "current" and not json:
            lines = unified_diff(before.splitlines(), unit.text.splitlines(), "before", "now", n=0, lineterm="")
            write_result("\n".join(lines))
    start = "restart" if service.is_enabled else "enable --now"
    commands = [f"{service.systemctl} daemon-reload", f"{service.systemctl} {start} {service.name}"]
    if scope == "system":
        commands.insert(0, "systemd-sysusers" + (f" --root={root}" if root else ""))
    if root is not None:
        commands = [commands[0], f"{service.systemctl} enable {service.name}"][scope == "user" :]
    if json:
        put_json({"changed": changed, "next": commands})
    else:
        write_message(f"Next: {' && '.join(commands)}")
