"""What all tests share."""

from hypothesis import settings

settings.register_profile("quick", max_examples=25, deadline=None)
settings.load_profile("quick")
