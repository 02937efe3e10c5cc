"""
Tests of the backends.
"""
