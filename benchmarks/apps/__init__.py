"""
What the servers under measurement serve.
"""
