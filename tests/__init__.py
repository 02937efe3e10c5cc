"""
Tests of the package, in the same rooms as the package itself.
"""
