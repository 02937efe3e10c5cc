"""
Where the whole suite is meant to run, a skipped test is a failure.

A tool that is not installed would else hide what it was to test.
"""

from __future__ import annotations

import os
from typing import Any

import pytest

COMPLETE = os.environ.get("CI", "").lower() in ("1", "true", "yes")


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
