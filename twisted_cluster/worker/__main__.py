"""
The entry point of a worker process: C{python -m twisted_cluster.worker}.
"""

from __future__ import annotations

import argparse
import sys

from twisted_cluster.worker import entry


def main(arguments: list[str]) -> int:
    """
    Run one worker, or one template.

    @return: The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m twisted_cluster.worker")
    parser.add_argument("--slot", type=int)
    parser.add_argument("--generation", type=int, required=True)
    options = parser.parse_args(arguments)
    begun = entry.begin(isTemplate=options.slot is None)
    if isinstance(begun, int):
        return begun
    channel, plan, binder = begun
    if binder is not None:
        return entry.runWorker(channel, plan, binder)
    from twisted_cluster.worker.template import runTemplate

    return runTemplate(channel, plan)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
