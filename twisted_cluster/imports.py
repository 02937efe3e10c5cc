"""
Importing what the operator named, with errors fit for the operator.

Runs in the master, for what the operator wants there: a subclass of the
service, a policy.  The app is never imported this way.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from functools import reduce
from typing import Any

from twisted_cluster.errors import ConfigError


def importName(what: str, name: str) -> Any:
    """
    What C{module:attr} names.  The current directory is importable from then
    on, as it is for C{twistd -y}.

    @param what: What can't be done without it, the words after "can't".

    @raise ConfigError: The module can't be imported, or has no such attribute.
    """
    module, _, attribute = name.partition(":")
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        found = importlib.import_module(module)
    except Exception as error:
        raise ConfigError(
            what, _importFailure(module, error), f"mend or install {module}"
        ) from error
    try:
        return reduce(getattr, attribute.split("."), found)
    except AttributeError as error:
        raise ConfigError(what, str(error), f"name something that {module} has") from error


def _importFailure(module: str, error: Exception) -> str:
    """
    Why the import failed, and where: the innermost line outside of the import
    system, if the module got as far as running.
    """
    reason = " ".join(f"importing {module} raised {type(error).__name__}: {error}".split())
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename != __file__ and "importlib" not in frame.filename
    ]
    return f"{reason} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else reason
