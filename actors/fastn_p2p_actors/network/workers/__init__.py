"""Workers on other machines: programs that serve one binding each, over TLS.

::

    worker --TLS 1.3--> worker_listener ---> mailbox ---> worker_access ---> registry, calls and sessions as ever
                                                                        `--> session_routes, for one session

- ``worker_listener``: the port, and connections that have shown no token yet.
- ``worker_access``: which token serves which binding, and which messages a worker may send.
- ``session_routes``: one session each, for workers that an identity's process has chosen.
- ``worker_certificate``: the certificate by which workers recognise this daemon.
"""
