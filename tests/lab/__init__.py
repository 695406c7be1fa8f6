"""A laboratory of networks on one machine: hosts, LANs and routers in network namespaces that a test makes for itself.

It needs root and ``/dev/net/tun``; elsewhere the tests are skipped with the reason. Nothing ever leaves the machine.
``make lab`` runs all of ``tests/lab``; ``make test`` runs those that are not marked ``lab_long``.

**Shape**::

    lab.net  198.51.100.0/24, 2001:db8::/64    the public network (also: relay, directory and public hosts)
      ├── router .11 ── LAN 10.1.0.0/24, 2001:db8:1::/64
      └── router .12 ── LAN 10.2.0.0/24, 2001:db8:2::/64
    lab.lan()  10.N.0.0/24, fd00:N::/64        a LAN without a router

Each host has a network namespace. A LAN is a bridge: multicast and IPv6 link-local addresses work. Packets to public
addresses that do not exist vanish. There is no DNS.

**Fixtures** (``conftest.py``): ``lab`` is empty but for ``lab.net``; ``two_homes`` has alice and bob behind a router
each, ``relay`` at .1 and ``public`` at .20; ``office`` is a LAN without a router. For a laboratory that the tests of a
module share, write a module's fixture with ``with Lab() as lab: yield ...``. A laboratory takes a tenth of a second,
and a third more for each router.

::

    @pytest.mark.parametrize("nat_kinds", [("cone", "symmetric")])     # default: cone, cone
    def test_calls(two_homes: TwoHomes) -> None:
        alice = two_homes.alice.daemon().start()
        bob = two_homes.bob.daemon().start()
        bob_id = bob.identity("bob")                                   # online, with Echo
        ...
        two_homes.home_a.reboot_outside_address()

**Hosts**: ``lab.host(name, *segments, address=None, ipv6=True)``

- ``host.daemon(name="daemon", network="internet", **env)``: a real daemon with a home of its own, not started; what
  ``tests.support.daemons.Daemon`` can, it can: ``start()``, ``launch("--relay", URL)``, ``cli("call", ...)``,
  ``identity("bob")``, ``client()``, ``kill_actor("network")``. Local sockets are files, so ``daemon.client()`` and
  ``Client(daemon.home)`` work in the test's own process.
- ``host.run([command])``, ``host.popen([command])``: any program, such as ``[*CLI, "relay", ...]``.
- ``host.socket(family, type)``: a socket of the host for the test's own code. ``host.call(function)`` runs a function
  in a thread inside the host: the sockets and threads that it makes stay inside.
- ``host.address``, ``address6``, ``interfaces``; ``set_address()`` (another one in the same network), ``link(False)``
  (cable pulled: the host notices), ``silence()`` (packets vanish, the host notices nothing), ``attach(segment)``,
  ``detach()``, ``move(segment)`` (another Wi-Fi).

**Routers**: ``lab.router(nat="cone"|"symmetric"|"none", firewall=True, timeout=60, ipv6=True)``

- ``impair(delay_ms=, jitter_ms=, loss=, rate=, direction=)``: one way; by chance from a fixed seed.
- ``block_udp(direction="out"|"in"|"both")``, ``block(direction, protocol=, remote=)`` (a black hole), ``unblock()``.
- ``reboot_outside_address()``, ``forget_flows()``, ``set_nat(kind)``, ``link(False)``, ``counts()``.
  An address from which a router has gone vanishes, as one that never was.

**Load**: ``running_load(alice_daemon, bob_daemon, "bob")`` calls Echo every 100 ms and gets a file again and again::

    with running_load(alice, bob, "bob") as load:          # begins when a call was answered
        two_homes.alice.set_address()
        seconds = load.wait_call()                         # until a call that began from now on is answered
    load.check()                                           # all calls answered, all files bit-identical
    assert load.longest_gap < 2 and load.transfers

**Limits**: a router spends 18 µs of processor time on a packet: 55,000 packets or 68 MB for each second of a core.
On two shared cores a TCP connection through it carried 20 MB/s. Its delays are exact to a millisecond.

**End**: leaving the laboratory ends every program and fails when a daemon leaves a process. A killed test leaves
nothing either: namespaces have no names, and a keeper kills what runs in them when the test's process is gone.

**Layout**

- ``lab``: ``Lab``, which makes everything. ``namespace``, ``enter``, ``keeper``: network namespaces, and processes
  in them.
- ``segment``: a bridge and the interfaces at it. ``host``, ``daemons``: machines and daemons.
- ``router``: a router as tests see it. ``router_process``, ``nat``, ``impairment``: the process that is the router.
- ``load``: calls and file transfers that go on while a test disturbs the network.
"""
