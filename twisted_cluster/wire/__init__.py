"""
What crosses process boundaries: the AMP commands and the channel that carries
them.
"""
