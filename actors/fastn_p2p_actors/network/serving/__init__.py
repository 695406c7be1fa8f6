"""Local processes that serve, and who may use their bindings.

- ``registry``: online identities and their bindings.
- ``load_balancer``: which process takes the next request.
- ``binding_homes``: which bindings another daemon of the identity serves.
- ``stateless_bindings``: which bindings any daemon of the identity may serve, and callers that were told.
- ``access_list``: identities that may use a binding.
- ``registration_grace``, ``expected_programs``: hold calls until processes have registered again.
- ``wake_ups``: starts the processes of identities that are asleep, and holds their calls meanwhile.
"""
