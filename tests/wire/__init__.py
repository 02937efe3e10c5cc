"""
Tests of what crosses process boundaries.
"""
