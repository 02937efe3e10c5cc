"""
Measurements of the cluster beside its peers.  C{python benchmarks/run.py}
runs them.
"""
