"""
Decisions, as pure functions and tables.

Nothing in this package reads a clock, draws a random number of its own, opens
a file or knows of a reactor: it is told what is, and returns a frozen value
that says what to do.  The rooms that do I/O carry it out.
"""
