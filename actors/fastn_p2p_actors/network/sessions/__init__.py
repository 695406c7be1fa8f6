"""Sessions that pass through this daemon.

- ``manager``: open, accept and find sessions.
- ``relay``: pass bytes and credit between the two legs of a session.
- ``revocation``: end sessions whose permission is revoked.
"""
