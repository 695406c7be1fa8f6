"""What the protocol ``Mail`` and the commands ``fastn-p2p mail`` are made of.

The client is ``fastn_p2p_client.mail``, with the messages.

Layout
------

``protocol``, ``config``  the protocol ``Mail``, and its config
``validation``            what a mail may be; encodes and decodes it
``schema``, ``storage``   how mail lies on disk; ``storage_usage`` counts it
``outbox``                what was sent; ``delivery_queue`` what of it waits
``inbox``                 what has come
``delivery``              all recipients of an outbox; ``recipient_worker`` delivers to one of them
``carrier``               the calls that deliver; ``recipient_lookup`` finds out whom a name means
``cli``, ``options``      what the commands share; ``attachments`` writes them to disk
"""
