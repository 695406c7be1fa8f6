"""Sending side of a transfer.

- ``upload``: ``FilesClient.put``.
- ``offer_manifest``: local files that are going to be offered.
- ``sender``: answers the requests of a receiver on a session.
"""
