"""The network process: the only process of the daemon that talks to the internet.

- ``actor``: creates the parts, joins them, starts and stops them.
- ``message_router``: which part gets which message in the mailbox. ``event_router``: which part is told what a
  connection reports.
- ``registration_requests``: processes that serve bring identities and bindings online. ``sleepers``: those that
  have no process until they are called.
- ``admin``, ``admin_messages``: requests of the gateway; ``report`` collects the state for
  ``status``. ``figures`` and ``call_counters``: numbers for metrics.
- ``contact_requests``: requests of the gateway about ``contacts``: pending peers, groups, invitations, blocked peers.
- ``refused_strangers``: which of those who were refused are listed for the owner, and reported to the audit log.
- ``waiting_items``: mails, offers and strangers that wait for the owner, for the notice of commands.
- ``calls``: calls of local programs, and calls that local processes serve.
- ``sessions``: sessions, each a relay between two legs.
- ``discovery``: from a name to a connection; records of peers and of the identities that are online, and their sources.
- ``connections``: one QUIC connection to each peer daemon, and what it carries.
- ``serving``: local processes that serve: registry, load balancer, access lists.
- ``revocation_exchange``: revocations of identities, taken from everywhere and passed on.
- ``invitation_exchange``: makes invitations, lets in their bearers, redeems those of other daemons.
- ``replicas``: identities that several daemons serve. ``workers``: programs on other machines that serve a binding.
- ``address_book``: peers by name, on top of ``known_peers``, ``known_records`` and ``seen_store``.
- ``live_settings``, ``settings_reload``: network settings, which change while the daemon runs.
- ``transport``, ``wire``: the iroh endpoint; the protocol between daemons.
- ``locked_mailbox``: the mailbox while the vault is locked. ``sender_identity``: an identity's process acts as itself.
- ``vault_client``, ``clock``: requests to the vault; detection of a wall clock that was set.

One call, file by file
----------------------

At the caller's daemon:

1. ``message_router``: ``MessageRouter`` decodes the program's ``Call`` from the mailbox.
2. ``calls/outgoing``: ``OutgoingCalls.on_call`` checks limits and starts the deadline.
3. ``discovery/targets``: ``TargetFinder.find`` chooses the calling identity, and decides whether the callee is served
   here (``serving/registry``; go on with step 8), by a peer daemon, or perhaps after the next registration.
4. ``discovery/router``: from the peer's name to its key, and to a connection that is open already. Without one,
   ``discovery/resolver`` lists endpoints, ``discovery/record_finder`` asks the sources for more,
   ``discovery/candidate_race`` tries them side by side, ``connections/pool`` opens one connection to each,
   ``connections/endpoint_dial`` tries its paths, and ``transport/endpoint`` begins each handshake.
5. ``connections/connection_requests``: ``ConnectionRequests`` sends a ``Request``, preceded by the caller's delegation
   (``connections/identity_exchange``). ``wire/framing`` encodes it, and ``connections/call_channel`` writes it. A large
   payload goes over ``connections/bulk_streams``.

At the callee's daemon:

6. ``connections/call_channel`` reads and decodes the ``Request``; ``connections/connection_requests`` checks that the
   caller's identity is proven.
7. ``event_router`` passes it to ``calls/peer_calls``, which holds it if its binding is not registered yet.
8. ``calls/incoming`` finds the binding in ``serving/registry``, asks its ``serving/access_list`` for permission and its
   ``serving/load_balancer`` for a process, and sends a ``DeliverCall`` to that process.
9. ``message_router`` receives the ``Reply`` in the mailbox; ``calls/incoming`` ends the call, and
   ``calls/peer_calls`` and ``connections/connection_requests`` send the reply back.

At the caller's daemon again, ``connections/message_dispatcher`` finds the call by its id, and ``calls/outgoing`` sends
the ``Reply`` to the program.

One session, file by file
-------------------------

At the daemon of the program that opens it:

1. ``message_router`` decodes ``OpenSession``; ``sessions/manager`` makes a ``SessionRelay`` with a ``LocalLeg`` for the
   program.
2. ``discovery/targets`` and ``discovery/router``, as for a call.
3. ``connections/session_handshake``: ``OutgoingSession`` is the other leg; ``connections/connection_sessions`` sends
   the request over the connection.

At the peer daemon:

4. ``connections/connection_sessions`` makes an ``IncomingSession`` of the request; ``event_router`` passes it to
   ``sessions/manager``.
5. ``sessions/session_offers`` checks permission, picks a process, sends it a ``DeliverSession``, and joins it to the
   ``IncomingSession`` by a second ``SessionRelay``. ``sessions/revocation`` ends the session if the permission ends.
   An identity's process may have a worker on another machine take its place (``workers/session_routes``).
6. The process accepts. ``connections/session_handshake`` sends ``SessionAccepted`` back.

At the first daemon again, ``connections/session_handshake`` opens a QUIC stream. Bytes then go through
``sessions/relay``, which enforces flow control, and ``connections/remote_leg``, which reads and writes the stream with
``connections/coalescing_reader`` and ``connections/stream_pacing``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fastn_p2p_actors.runtime.actor import ActorContext

RUST_DIAGNOSTICS: Final = ("RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "RUST_ERROR_LOCATION")
"""Environment variables that make iroh record where each error comes from. They cost 40 MB of memory at the first
failed handshake, and put paths of iroh's build machine into error messages."""


async def serve(context: ActorContext) -> None:
    """Run the network process until ``context.stop_requested`` is set."""
    for variable in RUST_DIAGNOSTICS:
        os.environ.pop(variable, None)
    from .actor import serve  # imported here because a process that only needs the messages needs no iroh

    await serve(context)
