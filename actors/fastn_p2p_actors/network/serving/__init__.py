"""Local processes that serve.

- ``registry``: online identities and their bindings.
- ``load_balancer``: which process takes the next request.
- ``access_list``: who may use a binding.
- ``registration_grace``, ``expected_programs``: hold calls until processes have registered again.
"""
