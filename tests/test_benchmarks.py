"""
Tests of what the benchmarks do with what they have measured.
"""

import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

from docutils.core import publish_doctree
from docutils.nodes import row
from hypothesis import given, strategies
from twisted.trial.unittest import SynchronousTestCase

from benchmarks import keepalive, load, machine, process, report, run, servers, stats
from benchmarks.measurements import broadcast

AB = """\
This is ApacheBench, Version 2.3 <$Revision: 1923142 $>
Benchmarking 127.0.0.1 (be patient).....done

Document Path:          /
Document Length:        6 bytes

Concurrency Level:      100
Time taken for tests:   2.000 seconds
Complete requests:      9000
Failed requests:        {failed}
   (Connect: 0, Receive: 1, Length: 2, Exceptions: 0)
{more}Total transferred:      1323000 bytes
HTML transferred:       54000 bytes
Requests per second:    4500.25 [#/sec] (mean)
Time per request:       22.221 [ms] (mean)
"""

WRK = """\
Running 5s test @ http://127.0.0.1:8080/
  1 threads and 50 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.05ms  501.12us  12.79ms   92.05%
    Req/Sec    12.38k     0.91k   13.35k    88.00%
  61646 requests in 5.01s, 8.64MB read
{more}Requests/sec:  12312.34
Transfer/sec:      1.73MB
"""


class AbTests(SynchronousTestCase):
    """
    L{load.parseAb}.
    """

    def test_counts(self) -> None:
        """
        All that is needed is read from a report without a failure.
        """
        self.assertEqual(
            load.parseAb(AB.format(failed=0, more="")), load.AbReport(9000, 0, 4500.25, 6)
        )

    def test_failures(self) -> None:
        """
        Failed requests are lost, and answers that are no success as well.
        """
        text = AB.format(failed=3, more="Non-2xx responses:      4\n")
        self.assertEqual(load.parseAb(text).lost, 7)

    def test_noReport(self) -> None:
        """
        Output without a report is refused and shown.
        """
        error = self.assertRaises(
            process.MeasurementError, load.parseAb, "apr_socket_connect(): Connection refused (111)"
        )
        self.assertIn("Connection refused", str(error))


class WrkTests(SynchronousTestCase):
    """
    L{load.parseWrk}.
    """

    def test_counts(self) -> None:
        """
        All that is needed is read from a report without a failure.
        """
        self.assertEqual(load.parseWrk(WRK.format(more="")), load.WrkReport(61646, 0, 12312.34))

    def test_failures(self) -> None:
        """
        Every kind of error is lost requests.
        """
        more = (
            "  Socket errors: connect 1, read 2, write 3, timeout 4\n"
            "  Non-2xx or 3xx responses: 5\n"
        )
        self.assertEqual(load.parseWrk(WRK.format(more=more)).lost, 15)

    def test_noReport(self) -> None:
        """
        Output without a report is refused.
        """
        self.assertRaises(process.MeasurementError, load.parseWrk, "unable to connect")


class KeepAliveTests(SynchronousTestCase):
    """
    L{keepalive.parseAnswer} and the report of the client.
    """

    HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n"

    def test_complete(self) -> None:
        """
        A complete answer is measured, whatever comes after it.
        """
        data = self.HEAD + b"\r\nhello\n"
        answer = keepalive.parseAnswer(data + b"HTTP/1.1 200")
        assert answer is not None
        self.assertEqual((answer.size, answer.closes), (len(data), False))

    def test_incomplete(self) -> None:
        """
        No proper prefix of an answer is one.
        """
        data = self.HEAD + b"\r\nhello\n"
        for end in range(len(data)):
            self.assertIsNone(keepalive.parseAnswer(data[:end]))

    def test_announcesClose(self) -> None:
        """
        The announcement of the end is noticed in any case of letters.
        """
        for header in (b"Connection: close", b"connection: CLOSE"):
            answer = keepalive.parseAnswer(self.HEAD + header + b"\r\n\r\nhello\n")
            assert answer is not None
            self.assertTrue(answer.closes)

    def test_noSuccess(self) -> None:
        """
        An error page is not counted as an answer.
        """
        data = self.HEAD.replace(b"200 OK", b"502 Bad Gateway") + b"\r\nhello\n"
        self.assertRaises(ValueError, keepalive.parseAnswer, data)

    def test_report(self) -> None:
        """
        The counts come as JSON; anything else is refused.
        """
        self.assertEqual(load.parseKeepAlive('{"lost": 2}\n'), {"lost": 2})
        self.assertRaises(process.MeasurementError, load.parseKeepAlive, "Traceback ...")


class StatsTests(SynchronousTestCase):
    """
    L{stats}.
    """

    def test_median(self) -> None:
        """
        Of an even number of samples it is the mean of the middle two.
        """
        self.assertEqual(stats.median([9.0, 1.0, 3.0]), 3.0)
        self.assertEqual(stats.median([1.0, 2.0, 4.0, 100.0]), 3.0)

    def test_noSamples(self) -> None:
        """
        Nothing has no median.
        """
        self.assertRaises(ValueError, stats.median, [])

    def test_percentile(self) -> None:
        """
        It is one of the samples, the first that enough others are not above.
        """
        samples = [float(number) for number in range(200, 0, -1)]
        found = [stats.percentile(samples, percent) for percent in (0, 0.5, 50, 99, 100)]
        self.assertEqual(found, [1.0, 1.0, 100.0, 198.0, 200.0])
        self.assertEqual(stats.percentile([7.0], 99), 7.0)

    def test_percentileOfNothing(self) -> None:
        """
        Nothing has none.
        """
        self.assertRaises(ValueError, stats.percentile, [], 50)

    @given(strategies.lists(strategies.floats(0, 1e3), min_size=1), strategies.integers(1, 100))
    def test_percentileHolds(self, samples: list[float], percent: int) -> None:
        """
        As many samples as it says are not above it, and with the next smaller
        one it would be fewer.
        """
        found = stats.percentile(samples, percent)
        needed = len(samples) * percent / 100
        self.assertGreaterEqual(sum(one <= found for one in samples), needed)
        self.assertLess(sum(one < found for one in samples), needed)

    def test_ratioOfPairs(self) -> None:
        """
        A slow spell that hits both sides of a pair does not move the ratio.
        """
        self.assertEqual(stats.ratio([1.0, 1.0, 50.0], [2.0, 2.0, 100.0]), 0.5)

    def test_ratioNeedsPairs(self) -> None:
        """
        Samples without a partner are refused.
        """
        self.assertRaises(ValueError, stats.ratio, [1.0], [1.0, 2.0])

    @given(
        strategies.lists(strategies.floats(1e-3, 1e3), min_size=1), strategies.floats(0.125, 8.0)
    )
    def test_ratioOfMultiples(self, samples: list[float], factor: float) -> None:
        """
        If each sample is a multiple of its partner, that is the ratio.
        """
        found = stats.ratio([sample * factor for sample in samples], samples)
        self.assertAlmostEqual(found, factor)

    def test_alternates(self) -> None:
        """
        Contenders run in turn, not one after the other.
        """
        order: list[str] = []

        def contender(name: str) -> Callable[[], float]:
            def run() -> float:
                order.append(name)
                return len(order)

            return run

        contenders = {name: contender(name) for name in "AB"}
        samples = stats.alternate(3, contenders)
        self.assertEqual("".join(order), "ABABAB")
        self.assertEqual(samples, {"A": [1, 3, 5], "B": [2, 4, 6]})


class ProcessTests(SynchronousTestCase):
    """
    L{process}.
    """

    def test_parseMemory(self) -> None:
        """
        Sizes are in millions of bytes; both kinds of private memory count.
        """
        rollup = (
            "00400000-7ffc Rollup 0 ---p 00000000 00:00 0   [rollup]\n"
            "Rss:               30000 kB\n"
            "Pss:               10000 kB\n"
            "Pss_Dirty:          7000 kB\n"
            "Private_Clean:      1000 kB\n"
            "Private_Dirty:      2000 kB\n"
        )
        self.assertEqual(process.parseMemory(rollup), {"private": 3.072, "pss": 10.24})

    def test_cpuSeconds(self) -> None:
        """
        A process's clock goes on with what the process does.
        """
        before = process.cpuSeconds(os.getpid())
        sum(range(100_000))
        self.assertGreater(process.cpuSeconds(os.getpid()), before)

    def test_machineSeconds(self) -> None:
        """
        Time in which the machine did nothing or was not run does not count.
        """
        line = "cpu  100 10 50 99999 500 3 7 4000 0 0"
        self.assertEqual(process.parseMachineSeconds(line, 100), 1.7)

    def test_ended(self) -> None:
        """
        A process that has ended and not been waited for is not alive.
        """
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", ""], os.environ)
        self.addCleanup(os.waitpid, pid, 0)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self.assertFalse(process.isAlive(pid))
        self.assertTrue(process.isAlive(os.getpid()))

    def test_serverThatDoesNotStart(self) -> None:
        """
        What a server said before it gave up is in the error.
        """
        server = process.Server(
            "broken", [sys.executable, "-c", "raise SystemExit('no way')"], process.freePort()
        )
        error = self.assertRaises(process.MeasurementError, server.__enter__)
        self.assertIn("broken does not start", str(error))
        self.assertIn("no way", str(error))

    def test_serverIsEnded(self) -> None:
        """
        A server that ignores SIGTERM is gone at the end of the block all the
        same, and its child too.
        """
        port = process.freePort()
        code = (
            "import os, signal, socket, time\n"
            "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "child = os.fork()\n"
            f"listening = socket.create_server(('127.0.0.1', {port})) if child else None\n"
            "if child: print('ready', child, flush=True)\n"
            "time.sleep(60)\n"
        )
        arguments = [sys.executable, "-c", code]
        with process.Server("stubborn", arguments, port, 1, r"ready (\d+)", patience=0.1) as server:
            (child,) = server.workers()
            self.assertTrue(process.isAlive(child))
        self.assertFalse(process.isAlive(server.pid))
        self.assertFalse(process.isAlive(child))

    def test_reload(self) -> None:
        """
        A reload is over when all workers of before are gone and as many are
        ready.
        """
        port = process.freePort()
        code = (
            "import os, signal, socket, time\n"
            f"listening = socket.create_server(('127.0.0.1', {port}))\n"
            "def start():\n"
            "    child = os.fork()\n"
            "    if not child:\n"
            "        signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
            "        time.sleep(60)\n"
            "    print('ready', child, flush=True)\n"
            "    return child\n"
            "def replace(number, frame):\n"
            "    global child\n"
            "    old, child = child, start()\n"
            "    os.kill(old, signal.SIGKILL)\n"
            "    os.waitpid(old, 0)\n"
            "child = start()\n"
            "signal.signal(signal.SIGHUP, replace)\n"
            "while True: signal.pause()\n"
        )
        arguments = [sys.executable, "-c", code]
        with process.Server(
            "reloads", arguments, port, 1, r"ready (\d+)", signal.SIGHUP, patience=0.1
        ) as server:
            before = server.workers()
            # The handler is there when the process waits for signals.
            server.settle()
            self.assertIsNotNone(server.reload(10))
            self.assertFalse(set(before) & set(server.workers()))

    def test_unfinishedReload(self) -> None:
        """
        A reload that is not over in time is told from one that is.
        """
        port = process.freePort()
        code = (
            "import os, signal, socket\n"
            "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
            f"listening = socket.create_server(('127.0.0.1', {port}))\n"
            "print('ready', os.getpid(), flush=True)\n"
            "signal.pause()\n"
        )
        arguments = [sys.executable, "-c", code]
        with process.Server(
            "stays", arguments, port, 1, r"ready (\d+)", signal.SIGHUP, patience=0.1
        ) as server:
            self.assertIsNone(server.reload(0.1))


class MachineTests(SynchronousTestCase):
    """
    L{machine}.
    """

    def test_cpuModel(self) -> None:
        """
        The model of the first CPU is taken.
        """
        text = "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nprocessor\t: 1\nmodel name\t: X\n"
        self.assertEqual(machine.cpuModel(text), "Some CPU @ 3 GHz")

    def test_release(self) -> None:
        """
        What somebody added to the version of a kernel is left out.
        """
        self.assertEqual(machine.numericVersion("6.18.44-custom-host7"), "6.18.44")
        self.assertEqual(machine.numericVersion("odd"), "of unknown version")

    def test_namesNoHost(self) -> None:
        """
        Neither the name of the host nor a path is in what is published.
        """
        line = machine.oneLine(machine.describe())
        self.assertNotIn("/", line)
        self.assertNotIn(f" {os.uname().nodename},", line)


RESULT = report.Result(
    name="cpu",
    title="Some rates",
    how="Under `ab -c1`. In turn.",
    columns=("", "Rate", "Share"),
    rows=(("one, <two>", "1,234", "0.500"), ("twisted_cluster", "2,468", "1.000")),
    goals=(
        report.Goal("Share", 0.97, 0.95, atMost=False),
        report.Goal("Time, ms", 15.5, 15),
    ),
    charts=(report.Chart("Rates & more", (("one, <two>", 1234.0), ("twisted_cluster", 2468.0))),),
    headlines=(report.Headline("Rate", "2,468", "1,234"),),
    samples={"one": [1.5, 2.5]},
)


class ReportTests(SynchronousTestCase):
    """
    L{report}.
    """

    def test_number(self) -> None:
        """
        Figures have three digits that say something.
        """
        texts = [report.number(value) for value in (0, 0.00012, 0.0461, 0.5, 1.234, 35.56, 12345.6)]
        self.assertEqual(texts, ["0", "0.0001", "0.046", "0.5", "1.23", "35.6", "12,346"])

    def test_goals(self) -> None:
        """
        A goal is met on its bound and on the right side of it.
        """
        rows = report.goalRows([RESULT])
        self.assertEqual(
            rows,
            [("Share", "≥ 0.95", "0.97", "met"), ("Time, ms", "≤ 15", "15.5", "missed")],
        )
        self.assertTrue(report.Goal("", 15, 15).met)
        self.assertTrue(report.Goal("", 15, 15, atMost=False).met)

    def test_textTable(self) -> None:
        """
        Columns are aligned, names to the left and figures to the right.
        """
        self.assertEqual(
            report.textTable(RESULT.columns, RESULT.rows).splitlines(),
            [
                "                  Rate  Share",
                "one, <two>       1,234  0.500",
                "twisted_cluster  2,468  1.000",
            ],
        )

    def test_markdownTable(self) -> None:
        """
        All rows have the same cells, the first two lines are head and rule.
        """
        self.assertEqual(
            report.markdownTable(("", "Rate"), [("one", "1")]).splitlines(),
            ["|  | Rate |", "| --- | ---: |", "| one | 1 |"],
        )

    def test_page(self) -> None:
        """
        The page is valid reStructuredText with a table of goals and one for
        each result.
        """
        text = report.page([RESULT], "2 CPUs")
        tree = publish_doctree(text, settings_overrides={"halt_level": 2, "report_level": 2})
        self.assertEqual(len(list(tree.findall(row))), 3 + 3)
        self.assertIn("ab -c1", tree.astext())
        self.assertIn("Measured on 2 CPUs.", tree.astext())

    def test_svg(self) -> None:
        """
        The chart is XML whose bars are as long as their figures are large.
        """
        tree = ElementTree.fromstring(report.svg(RESULT.charts))
        bars = [
            float(found.attrib["width"])
            for found in tree.iter("{http://www.w3.org/2000/svg}rect")
            if found.get("x")
        ]
        self.assertAlmostEqual(bars[0] * 2, bars[1], places=0)
        texts = [found.text for found in tree.iter("{http://www.w3.org/2000/svg}text")]
        self.assertIn("one, <two>", texts)
        self.assertIn("2,468", texts)

    def test_svgOfZeros(self) -> None:
        """
        Bars of nothing are drawn, too.
        """
        svg = report.svg([report.Chart("None", (("one", 0.0),))])
        self.assertEqual(ElementTree.fromstring(svg).tag, "{http://www.w3.org/2000/svg}svg")

    def test_json(self) -> None:
        """
        A result survives the way through JSON.
        """
        self.assertEqual(report.fromJson(json.loads(json.dumps(report.toJson(RESULT)))), RESULT)

    def test_readme(self) -> None:
        """
        Only what is between the marks is replaced, with both tables.
        """
        block = report.readmeBlock({"cpu": RESULT}, "2 CPUs")
        text = f"# Name\n{report.BEGIN}\nold \\1\n{report.END}\nrest\n"
        replaced = report.replaceBlock(text, block)
        self.assertTrue(replaced.startswith(f"# Name\n{report.BEGIN}\nUnder `ab -c1`:"))
        self.assertTrue(replaced.endswith(f"{report.END}\nrest\n"))
        self.assertNotIn("old", replaced)
        self.assertIn("| Rate | 2,468 | 1,234 |", replaced)
        self.assertEqual(report.replaceBlock(replaced, block), replaced)

    def test_readmeWithoutMarks(self) -> None:
        """
        A README without exactly one pair of marks in the right order is left
        alone.
        """
        for text in (
            "",
            report.BEGIN,
            f"{report.END}{report.BEGIN}",
            report.BEGIN * 2 + report.END,
        ):
            self.assertRaises(ValueError, report.replaceBlock, text, "new")


def _sampleOf(perCpu: float, quiet: list[float], steady: list[float]) -> broadcast.Sample:
    return broadcast.Sample(
        perCpu,
        rate=9000.0,
        told=[100.0, 300.0],
        called=[200.0],
        state=0.5,
        stateCpu=0.25,
        quiet=quiet,
        steady=steady,
        large=[40.0],
    )


class BroadcastTests(SynchronousTestCase):
    """
    L{broadcast}.
    """

    def setUp(self) -> None:
        samples = {
            servers.OURS: [
                _sampleOf(50_000.0, [1.0], [3.0]),
                _sampleOf(40_000.0, [2.0], [3.0]),
                _sampleOf(30_000.0, [4.0], [4.0]),
            ],
            servers.NODE: [_sampleOf(20_000.0, [1.0], [5.0])] * 3,
        }
        self.result = broadcast.result(samples, broadcast.Amounts(20_000, 200, 400, 1.0))

    def test_goals(self) -> None:
        """
        What is compared is compared within each round.
        """
        self.assertEqual([goal.value for goal in self.result.goals], [2.0, 1.5])
        self.assertTrue(all(goal.met for goal in self.result.goals))

    def test_table(self) -> None:
        """
        Each row has a figure of either.
        """
        rows = {what: figures for what, *figures in self.result.rows}
        self.assertEqual(self.result.columns, ("", servers.OURS, servers.NODE))
        self.assertEqual(
            rows["Broadcasts per CPU second of the master"], ["40,000", "20,000"], list(rows)
        )
        self.assertEqual(rows["Broadcast, p50, µs"], ["100", "100"])
        self.assertEqual(rows["Broadcast, p99, µs"], ["300", "300"])
        self.assertEqual(
            rows["Connection, p99, a large message, by that when nothing goes on"], ["20", "40"]
        )

    def test_published(self) -> None:
        """
        It survives the way through JSON, and makes a valid page.
        """
        again = report.fromJson(json.loads(json.dumps(report.toJson(self.result))))
        page = report.page([again], "2 CPUs")
        publish_doctree(page, settings_overrides={"halt_level": 2, "report_level": 2})

    def test_answers(self) -> None:
        """
        A server that failed, or ended, is an error that shows what it said.
        """
        self.assertEqual(broadcast.parseAnswer(b'{"cpu": 1.5}\n'), {"cpu": 1.5})
        self.assertEqual(broadcast.parseAnswer(b"[1, 2]\n"), [1, 2])
        error = self.assertRaises(
            process.MeasurementError, broadcast.parseAnswer, b'{"error": "no worker"}\n'
        )
        self.assertIn("no worker", str(error))
        self.assertRaises(process.MeasurementError, broadcast.parseAnswer, b"")

    def test_lostBroadcasts(self) -> None:
        """
        A worker that did not get everything spoils the figures.
        """
        broadcast.checkBlocks({"blocks": [5] * broadcast.WORKERS}, 5)
        for blocks in ([5] * (broadcast.WORKERS - 1), [5] * (broadcast.WORKERS - 1) + [4]):
            self.assertRaises(
                process.MeasurementError, broadcast.checkBlocks, {"blocks": blocks}, 5
            )

    def test_control(self) -> None:
        """
        A command is a line of JSON, and is known to be answered when it is.
        """
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(Path(directory.name, "control")))
            listening.listen()
            with broadcast.Control(Path(directory.name)) as control:
                server, _ = listening.accept()
                with server, server.makefile("rb") as lines:
                    control.start("rate", count=3)
                    command = json.loads(lines.readline())
                    self.assertFalse(control.answered)
                    server.sendall(b"[7]\n")
                    self.assertTrue(control.answered)
                    self.assertEqual(control.finish(), [7])
        self.assertEqual(command, {"do": "rate", "count": 3})


class RunTests(SynchronousTestCase):
    """
    L{run}.
    """

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.root = Path(directory.name)
        (self.root / "docs").mkdir()
        self.patch(run, "RESULTS", self.root / "results")
        self.patch(run, "DOCS", self.root / "docs")
        self.patch(run, "README", self.root / "README.md")
        self.machine = machine.describe()

    def test_partOfTheResults(self) -> None:
        """
        As long as results are missing nothing is published, and it is said
        which.
        """
        run.store(RESULT, self.machine)
        said = run.publish(run.stored(self.machine), self.machine)
        self.assertIn("no results of handoff, keepalive", said)
        self.assertEqual(list((self.root / "docs").iterdir()), [])

    def test_otherMachine(self) -> None:
        """
        Results of another machine do not count.
        """
        run.store(RESULT, {**self.machine, "Python": "2.7"})
        self.assertEqual(run.stored(self.machine), {})

    def test_publish(self) -> None:
        """
        With all results there, the page, the chart and the README are
        written.
        """
        run.README.write_text(f"{report.BEGIN}{report.END}")
        results = {name: RESULT for name in run.NAMES}
        self.assertEqual(run.publish(results, self.machine), "docs and README.md written")
        self.assertEqual(
            sorted(path.name for path in run.DOCS.iterdir()),
            ["_generated_performance.rst", "performance.svg"],
        )
        self.assertIn("1,234", run.README.read_text())

    def test_readmeWithoutMarks(self) -> None:
        """
        A README that has no place for the table is said to have none.
        """
        run.README.write_text("# Name\n")
        results = {name: RESULT for name in run.NAMES}
        self.assertIn("README.md not", run.publish(results, self.machine))
        self.assertEqual(run.README.read_text(), "# Name\n")

    def test_busyMachine(self) -> None:
        """
        It is said if the machine has other things to do.
        """
        self.assertIsNone(run.busyWarning(0.05))
        self.assertIn("use 1.3 CPUs", run.busyWarning(1.3) or "")

    def test_everyNameIsAModule(self) -> None:
        """
        Each name that can be asked for is a measurement.
        """
        for name in run.NAMES:
            self.assertTrue(callable(run.measurement(name)))
