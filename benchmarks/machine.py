"""
What the figures were measured on.  No names of hosts, no paths.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata


def describe() -> dict[str, str]:
    """
    The hardware and the versions that matter, by what they are called.
    """
    return {
        "CPUs": str(len(os.sched_getaffinity(0))),
        "CPU model": cpuModel(_read("/proc/cpuinfo")),
        "System": f"{platform.system()} {numericVersion(platform.release())}",
        "Python": platform.python_version(),
        "Twisted": metadata.version("twisted"),
        "Node.js": _nodeVersion(),
        **{name: version for name in ("gunicorn", "uvicorn") if (version := _version(name))},
    }


def oneLine(machine: dict[str, str]) -> str:
    """
    The same as a sentence fragment.
    """
    rest = {name: text for name, text in machine.items() if name not in ("CPUs", "CPU model")}
    versions = ", ".join(
        text if name == "System" else f"{name} {text}" for name, text in rest.items()
    )
    return f"{machine['CPUs']} CPUs ({machine['CPU model']}), {versions}"


def cpuModel(cpuinfo: str) -> str:
    """
    The model in the text of C{/proc/cpuinfo}.
    """
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def numericVersion(release: str) -> str:
    """
    The leading numbers of a kernel release, without what a distributor or a
    host added to it.
    """
    found = re.match(r"\d+(\.\d+)*", release)
    return found.group() if found else "of unknown version"


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def _nodeVersion() -> str:
    try:
        done = subprocess.run(
            ["node", "--version"], check=True, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return "not installed"
    return done.stdout.strip().lstrip("v")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
