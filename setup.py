"""
For tools that still run this file.  Everything is said in pyproject.toml.
"""

from setuptools import setup

setup()
