"""
How pytest runs the tests: away from the checkout, and where the whole suite is
meant to run, with a skipped test as a failure.

A tool that is not installed would else hide what it was to test.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMPLETE = os.environ.get("CI", "").lower() in ("1", "true", "yes")


@pytest.fixture(scope="session", autouse=True)
def _elsewhere() -> Iterator[None]:
    """
    Run in a directory that is removed at the end: C{mktemp} of a test case
    makes its directories in the current one.  Processes that tests start find
    the package all the same.
    """
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="tc-") as directory, pytest.MonkeyPatch.context() as to:
        to.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        os.chdir(directory)
        yield
        os.chdir(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: Any) -> Any:
    """
    Turn the report of a skipped test into one of a failure, with C{CI=true}.
    """
    report: pytest.TestReport = yield
    if COMPLETE and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which CI=true forbids: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    """
    The same for a module that skips itself.
    """
    report: pytest.CollectReport = yield
    if COMPLETE and report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} was skipped, which CI=true forbids"
    return report


def _reason(report: pytest.TestReport) -> str:
    """
    What the test gave for a reason.
    """
    details = report.longrepr
    return str(details[2]) if isinstance(details, tuple) else str(details)
