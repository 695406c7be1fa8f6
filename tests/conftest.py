"""What every test shares."""

from hypothesis import settings

# No deadline per example: pytest's timeout bounds the whole test, and a loaded machine is no bug.
settings.register_profile("default", deadline=None)
settings.load_profile("default")
