"""
The clients: C{ab}, C{wrk}, and one that counts what becomes of keep-alive
connections.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from benchmarks.process import ROOT, MeasurementError
from benchmarks.servers import tool


@dataclass(frozen=True)
class AbReport:
    """
    What C{ab} counted.

    @ivar lost: Requests that got no or a wrong answer.
    @ivar rate: Requests per second.
    @ivar document: The bytes of the first answer; all others are compared
        with it.
    """

    complete: int
    lost: int
    rate: float
    document: int


def parseAb(output: str) -> AbReport:
    """
    Read the report of C{ab}.

    @raise MeasurementError: if it is none.
    """
    complete = int(_find(r"^Complete requests:\s+(\d+)", output, "ab"))
    failed = int(_find(r"^Failed requests:\s+(\d+)", output, "ab"))
    other = re.search(r"^Non-2xx responses:\s+(\d+)", output, re.MULTILINE)
    return AbReport(
        complete,
        failed + (int(other.group(1)) if other else 0),
        float(_find(r"^Requests per second:\s+([\d.]+)", output, "ab")),
        int(_find(r"^Document Length:\s+(\d+)", output, "ab")),
    )


@dataclass(frozen=True)
class WrkReport:
    """
    What C{wrk} counted.

    @ivar lost: Socket errors and answers other than 2xx and 3xx.
    """

    complete: int
    lost: int
    rate: float


def parseWrk(output: str) -> WrkReport:
    """
    Read the report of C{wrk}.

    @raise MeasurementError: if it is none.
    """
    lost = 0
    errors = re.search(r"Socket errors: (.+)$", output, re.MULTILINE)
    if errors:
        lost += sum(map(int, re.findall(r"\d+", errors.group(1))))
    other = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    if other:
        lost += int(other.group(1))
    return WrkReport(
        int(_find(r"(\d+) requests in ", output, "wrk")),
        lost,
        float(_find(r"^Requests/sec:\s+([\d.]+)", output, "wrk")),
    )


def _find(pattern: str, output: str, program: str) -> str:
    found = re.search(pattern, output, re.MULTILINE)
    if found is None:
        raise MeasurementError(f"{program} gave no report:\n{output[-1000:]}")
    return found.group(1)


def url(port: int) -> str:
    """
    Where a server under measurement answers.
    """
    return f"http://127.0.0.1:{port}/"


class Load:
    """
    A running client.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            arguments,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def finish(self, timeout: float) -> str:
        """
        Wait for its end and return its report.
        """
        try:
            return self._process.communicate(timeout=timeout)[0]
        except subprocess.TimeoutExpired as error:
            self._process.kill()
            output = self._process.communicate()[0]
            raise MeasurementError(
                f"a client did not end in {timeout:g} s:\n{output[-1000:]}"
            ) from error

    def interrupt(self) -> str:
        """
        End it now and return its report.
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        return self.finish(20)


def abFor(port: int, seconds: float, concurrency: int) -> Load:
    """
    C{ab} for a time, one request per connection.
    """
    limits = ["-t", f"{seconds:g}", "-n", "10000000", "-c", str(concurrency)]
    return Load([tool("ab"), "-q", "-r", "-s", "60", *limits, url(port)])


def abCount(port: int, requests: int, concurrency: int) -> AbReport:
    """
    C{ab} for a number of requests, one per connection.

    @raise MeasurementError: if any was lost: figures per request would be
        wrong.
    """
    limits = ["-n", str(requests), "-c", str(concurrency)]
    with Load([tool("ab"), "-q", "-r", *limits, url(port)]) as load:
        report = parseAb(load.finish(180))
    if report.lost or not report.document or report.complete != requests:
        raise MeasurementError(f"ab lost requests where none should be: {report}")
    return report


def wrk(port: int, seconds: float, connections: int) -> WrkReport:
    """
    C{wrk}: keep-alive connections, each asking again as soon as it is
    answered.

    @raise MeasurementError: if any request was lost.
    """
    limits = ["-t", "1", "-c", str(connections), "-d", f"{seconds:g}"]
    with Load([tool("wrk"), *limits, url(port)]) as load:
        report = parseWrk(load.finish(seconds + 60))
    if report.lost:
        raise MeasurementError(f"wrk lost requests where none should be: {report}")
    return report


def keepAlive(port: int, connections: int) -> Load:
    """
    The client of L{benchmarks.keepalive}, until it is interrupted.
    """
    return Load([sys.executable, "-m", "benchmarks.keepalive", str(port), str(connections)])


def parseKeepAlive(output: str) -> dict[str, int]:
    """
    Read its report.

    @raise MeasurementError: if it is none.
    """
    try:
        counts: dict[str, int] = json.loads(output)
    except ValueError:
        raise MeasurementError(f"the keep-alive client gave no report:\n{output}") from None
    return counts
