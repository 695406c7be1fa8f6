"""Mail for programs: ``MailClient`` sends and reads as an identity of this machine.

::

    from fastn_p2p_client.mail import MailClient

    async with MailClient("alice") as mail:
        await mail.send("bob", "Lunch?", "At noon, as always.")

When ``send`` returns, the mail is on this machine's disk. It arrives in the receiver's inbox exactly once.

Layout
------

``client``    ``MailClient``
``sync``      its blocking twin
``messages``  the messages of the protocol ``Mail``
"""

from .client import MailClient
from .messages import (
    Attachment,
    InboxPage,
    MailAccepted,
    MailContent,
    MailSummary,
    OutboxEntry,
    OutboxPage,
    OutboxState,
    ReceivedMail,
)

__all__ = [
    "Attachment",
    "InboxPage",
    "MailAccepted",
    "MailClient",
    "MailContent",
    "MailSummary",
    "OutboxEntry",
    "OutboxPage",
    "OutboxState",
    "ReceivedMail",
]
