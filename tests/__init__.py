"""
Tests of the package, in the same rooms as the package itself.
"""

from hypothesis import HealthCheck, settings

# How long an example takes depends on the machine and on what else it does.
settings.register_profile(
    "untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("untimed")
