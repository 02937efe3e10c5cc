"""
Tests of the worker: its session over a real socketpair, its ports and loader.
"""
