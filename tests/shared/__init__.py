"""
Tests of state, cache and leases as apps see them.
"""
