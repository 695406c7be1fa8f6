"""What the protocol ``Mail`` and the commands ``fastn-p2p mail`` are made of.

The client is ``fastn_p2p_client.mail``, with the messages.

Layout
------

``settings``   the config
``letters``    what a letter may be
``schema``     how mail lies on disk; ``database`` writes and reads it, ``room`` counts it
``outbox``     what was sent; ``queue`` what of it waits
``mailbox``    what has come; ``bell`` wakes whoever waits for a change in either
``delivery``   all routes of an outbox; ``route`` is one, with ``backoff`` between attempts
``carrier``    the calls that a route makes; ``addresses`` finds out whom a name means
``command``    what the commands share; ``options`` too; ``saving`` writes attachments to disk
"""
