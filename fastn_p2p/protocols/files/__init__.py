"""Files between peers: the code behind the protocol ``FileTransfer`` and the commands ``fastn-p2p files``.

::

    from fastn_p2p.protocols.files.client import FilesClient

    async with Client() as client:
        tally = await FilesClient(client, "alice", "bob").get(["photos"], Path("from-bob"))

Layout
------

``protocol``, ``config``   the protocol ``FileTransfer``, and its config
``messages``, ``framing``  messages of both sides, and how they are framed; ``errors``, ``events``, ``tally``
``client``                 ``FilesClient``; ``download`` and ``upload`` are its two large methods, over a ``transport``
``sender``, ``receiver``   the two sides of a session; ``source_file``, ``partial_file`` and ``file_writer`` are under
them ``offer_manifest``         local files that are going to be offered ``inbox``, ``offer_store`` offers;
``offer_receiver`` an accepted one, ``arrivals`` those that have come ``destination``            where files are put;
``safe_tree`` is a directory that no link leads out of ``walk``, ``path_set``     everything below a directory; which
paths are too much alike ``work_pool``              threads for what peers cause, with a share for each; ``opening``
opens files in one ``digest``, ``checkpoints``  BLAKE3, and hashes of parts, so that nothing is hashed twice ``retry``
when a broken transfer is tried again ``linux_syscalls``         two system calls ``cli``, ``options``, ``progress``
what the commands share
"""
