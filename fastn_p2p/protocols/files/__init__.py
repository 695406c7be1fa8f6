"""Files between peers: the code behind the protocol ``FileTransfer`` and the commands ``fastn-p2p files``.

::

    from fastn_p2p.protocols.files.client import Files

    async with Client() as client:
        tally = await Files(client, "alice", "bob").get(["photos"], Path("from-bob"))

Layout
------

``remote``       ``Files``: what a peer shares, and its inbox; ``getting`` and ``putting`` are its two large methods
``manifest``     local files that are going to be offered
``messages``     what the two sides say, ``frames`` how; ``failures`` what can go wrong
``supplying``    the side of a session that sends files, ``source`` one file of it
``pulling``      the side that receives them, ``partial`` one file that has not arrived completely, ``writer`` its bytes
                 on their way to the disk
``work_pool``    threads for what peers cause, with a share for each; ``checkpoints`` of hashes, so that nothing is
                 hashed twice
``destination``  where they are put; ``tree`` is a directory that no link leads out of
``opening``      in a thread, and closed in any case
``walking``      everything below a directory
``names``        which names from a peer are let near a file system; ``risks`` which are taken only by name, and
                 ``sightings`` which are too much alike
``settings``     the config of the protocol, ``inbox`` the offers and ``offer_store`` where they are kept, ``intake`` an
                 accepted one whose files are coming, ``arrivals`` those that have come
``patience``     when a broken way is tried again
``events``       what happens, for whoever watches; ``tally`` counts it
``hashing``      BLAKE3; ``kernel`` two system calls
"""
