"""libzmq sockets on the event loop.

- ``sockets``: make sockets; ``SocketMonitor`` reports what happens to them.
- ``send_queue``: messages that wait to be sent, sent in groups.
- ``connection``: a DEALER to one mailbox.
"""
