"""ZMTP 3.1 on the event loop. Between sender and receiver no other thread or process wakes up.

- ``codec``: encode greetings, commands and messages.
- ``decoder``: decode bytes to messages.
- ``connection``: ``ZmtpConnection``, one connected socket.
"""
