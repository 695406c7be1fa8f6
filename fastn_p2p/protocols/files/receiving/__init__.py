"""Receiving side of a transfer.

- ``download``: ``FilesClient.get``.
- ``receiver``: receives one file on a session.
- ``destination``: the directory that files are written to.
- ``partial_file``, ``file_writer``: a file that has not arrived completely, and how it is written.
- ``offer_inbox``, ``offer_store``: offers of peers, and their files on disk.
- ``offer_receiver``: receives the files of one accepted offer.
- ``arrivals``: recognises files that have arrived before.
"""
