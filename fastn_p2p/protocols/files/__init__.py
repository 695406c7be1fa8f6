"""Files between peers: the protocol ``FileTransfer`` and the commands ``fastn-p2p files``.

::

    from fastn_p2p.protocols.files.client import FilesClient

    async with Client() as client:
        summary = await FilesClient(client, "alice", "bob").get(["photos"], Path("from-bob"))

- ``protocol``, ``config``, ``client``: ``FileTransfer``, its config, and ``FilesClient``.
- ``messages``, ``framing``, ``errors``, ``events``, ``digest``: vocabulary of both sides.
- ``files_transport``, ``retry``: calls and sessions that a transfer needs, and its retry policy.
- ``sending``, ``receiving``: the two sides; ``file_system``: local files.
- ``cli``, ``progress``: what the commands share.
"""
