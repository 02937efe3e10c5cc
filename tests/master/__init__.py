"""
Tests of the master: the real one, with a clock and workers that tests move.
"""
