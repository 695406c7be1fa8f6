"""Administration of a daemon by programs: what the commands of ``fastn-p2p`` do, as typed methods.

``Client`` has them as ``identities``, ``protocols``, ``peers``, ``groups`` and ``invitations``::

    async with Client() as client:
        alice = await client.identities.create("alice")
        await client.protocols.add("alice", "Echo", config={"max_length": 1000})
        await client.identities.set_online("alice")
        print(alice.id52, (await client.status()).uptime_ms)

- ``identity_admin``, ``protocol_admin``: identities, and the protocols that are bound to them.
- ``peer_admin``, ``group_admin``: the address book, strangers, blocked peers, and groups of peers.
- ``invitation_admin``: invitations.

``sync.Client`` has the same without ``await``. Every method raises P2PError: the error of the daemon, or the reason why
it did not answer, as in ``Client.start``. A request waits for at most 60 seconds where nothing else is said.
"""
