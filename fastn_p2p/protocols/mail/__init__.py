"""Protocol ``Mail`` and the commands ``fastn-p2p mail``. Its client and messages are in ``fastn_p2p_client.mail``.

- ``protocol``, ``config``: ``Mail`` and its config.
- ``validation``: checks a mail against its limits, encodes and decodes it.
- ``schema``, ``storage``: tables of a mailbox and counters of its usage; its directory.
- ``inbox``, ``outbox``: received and sent mails.
- ``accepted_batch``: mails that the outbox accepts in one transaction.
- ``delivery_queue``: outgoing mails by recipient.
- ``delivery``, ``recipient_worker``: delivery to all recipients, and to one of them.
- ``recipient_lookup``: finds the key that a name stands for.
- ``cli``: what the commands share.
"""
