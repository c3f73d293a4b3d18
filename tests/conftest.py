"""For all tests."""

from hypothesis import settings

# a slow machine is no failure
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")
