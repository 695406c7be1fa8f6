"""HTTP between peers: requests that carry their verified caller.

- ``request_reader``: read requests, and refuse what two programs could understand differently.
- ``request_rewriter``: pass requests on with other heads.
- ``caller_headers``: the headers that name the caller.
- ``error_response``: answers that do not come from the service.

These modules need h11, which the extra ``http`` installs.
"""
