"""
How many CPUs this process may really use.

A container may see all CPUs of its host and be allowed the time of two.  The
smaller of the CPU affinity and the cgroup quota is what counts.  Any process.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator

_CGROUPS = ("sys", "fs", "cgroup")


def usableCpus(root: str = "/", affinity: int | None = None) -> int:
    """
    The number of CPUs this process may use, at least 1.  A share of a CPU
    counts as a whole one.

    @param root: The root of the file system that C{proc} and C{sys} are in.
    @param affinity: How many CPUs it may be scheduled on; asked of the kernel
        if it is L{None}.
    """
    limits = [float(affinityCount() if affinity is None else affinity)]
    quota = cgroupQuota(root)
    if quota is not None:
        limits.append(quota)
    return max(1, math.ceil(min(limits)))


def affinityCount() -> int:
    """
    How many CPUs this process may be scheduled on; where the kernel can't
    tell, how many there are.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroupQuota(root: str = "/") -> float | None:
    """
    The CPU time per time that the cgroups of this process leave it, in CPUs,
    or L{None} if they do not limit it.  What can't be read or understood does
    not limit it.
    """
    quotas = [quota for quota in _quotas(root) if quota is not None]
    return min(quotas, default=None)


def _quotas(root: str) -> Iterator[float | None]:
    """
    The quota of every cgroup that holds this process, of both versions: on a
    host that has both mounted, the controller is in one of them.
    """
    for line in _read(os.path.join(root, "proc", "self", "cgroup")).splitlines():
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if not colon:
            continue
        if controllers == "":
            for directory in _ancestry(root, ("", "unified"), path):
                yield _quotaV2(directory)
        elif "cpu" in controllers.split(","):
            for directory in _ancestry(root, (controllers, "cpu"), path):
                yield _quotaV1(directory)


def _ancestry(root: str, mounts: Iterable[str], path: str) -> Iterator[str]:
    """
    The directory of a cgroup below each of C{mounts}, and those above it.

    In a container C{path} may be one that only the host has, so directories
    that do not exist are passed by on the way up.
    """
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    for mount in mounts:
        for depth in range(len(parts), -1, -1):
            yield os.path.join(root, *_CGROUPS, mount, *parts[:depth])


def _quotaV2(directory: str) -> float | None:
    quota, _, period = _read(os.path.join(directory, "cpu.max")).strip().partition(" ")
    return _ratio(quota, period)


def _quotaV1(directory: str) -> float | None:
    return _ratio(
        _read(os.path.join(directory, "cpu.cfs_quota_us")),
        _read(os.path.join(directory, "cpu.cfs_period_us")),
    )


def _ratio(quota: str, period: str) -> float | None:
    """
    C{quota} by C{period}, both in microseconds; L{None} for C{max}, for -1
    and for anything else that is not a quota.
    """
    try:
        granted, whole = int(quota), int(period)
        return granted / whole if granted > 0 and whole > 0 else None
    except (ValueError, OverflowError):
        return None


def _read(path: str) -> str:
    """
    The text of a file of the kernel, empty if there is none to be had.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except (OSError, ValueError):
        return ""
