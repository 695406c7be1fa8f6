"""Sensors mail their readings to a collector, and lose none while either machine is off.

    python examples/sensor_fleet.py collect COLLECTOR
    python examples/sensor_fleet.py sense PEER SENSOR...

``COLLECTOR`` is an identity of the machine that collects. Each ``SENSOR`` is an identity of a machine that measures,
and ``PEER`` is what that machine calls the collector. All of them need the protocol ``Mail``; the collector's admits
the sensors: ``fastn-p2p add-protocol COLLECTOR --protocol Mail --allow group:sensors``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import msgspec

from fastn_p2p_client import P2PError
from fastn_p2p_client.mail.sync import MailClient


class Reading(msgspec.Struct):
    load: float
    at: float


def sense(collector: str, *sensors: str) -> None:
    """Mail one reading of each sensor. Run it from a timer: each mail is on disk when its line is printed."""
    for sensor in sensors:
        load = float(Path("/proc/loadavg").read_text().split()[0])
        with MailClient(sensor) as mail:
            reading = msgspec.json.encode(Reading(load, time.time())).decode()
            number = mail.send(collector, "reading", reading).number
        print(f"{sensor}: reading {number} is on its way")


def collect(identity: str) -> None:
    """Print each reading once it has come, then delete its mail."""
    with MailClient(identity) as mail:
        print(f"serving as {identity}. Ctrl-C ends it", flush=True)
        for summary in mail.follow():
            text = mail.read(summary.number).letter.body
            try:
                print(summary.name or summary.sender, msgspec.json.decode(text, type=Reading).load, flush=True)
            except msgspec.DecodeError as error:  # from a sensor that is no sensor
                print(summary.name or summary.sender, "sent no reading:", error, flush=True)
            mail.delete(summary.number)


if __name__ == "__main__":
    try:
        sense(*sys.argv[2:]) if sys.argv[1] == "sense" else collect(*sys.argv[2:])
    except P2PError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        pass
