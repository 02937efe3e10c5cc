"""
The C{twisted-cluster} command: asks a running master for its status and tells
it what to do.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 the master can't be
reached, 130 interrupted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.task import react
from twisted.python.failure import Failure

import twisted_cluster
from twisted_cluster.config import DEFAULT_ADMIN
from twisted_cluster.errors import AdminError
from twisted_cluster.events import Phase
from twisted_cluster.ops.client import Client, Unreachable, connect, endOf, greet
from twisted_cluster.ops.report import plural, report, visible
from twisted_cluster.wire import admin as wire

DONE = 0
FAILED = 1
USAGE = 2
UNREACHABLE = 3
INTERRUPTED = 130

_NAME = "twisted-cluster"
_LINES = "\n\t"

_WHERE = (
    "the admin socket of the master, as its own --admin names it"
    f" (default: {DEFAULT_ADMIN} in the current directory)"
)

_HELP = f"""\
usage: {_NAME} [--admin PATH] COMMAND ...

Ask the master of a cluster for its status, or tell it what to do.

Commands:
  status [--json]   show all processes, listeners and the account of sockets
  reload            replace all workers without losing a connection, and wait
                    --all-hosts: on all hosts, one after another
  scale N           have N workers, and wait until they are ready
  restart SLOT      replace the worker of one slot, and wait
  broadcast TEXT    send a text to the app in all workers
  stop [--now]      stop the master, and wait for its end; --now: no drain

Options:
  --admin PATH      the admin socket, as the master's own --admin names it; by
                    default {DEFAULT_ADMIN} in the current directory
  --version         show the version and exit
  -h, --help        show this help and exit, or that of a COMMAND

Exit codes:
  {DONE}  done
  {FAILED}  refused or failed; standard error has the reason
  {USAGE}  wrong usage
  {UNREACHABLE}  no master can be reached, or it went away
  {INTERRUPTED}  interrupted
"""


@dataclass(frozen=True)
class _Call:
    """
    One call of the command.

    @ivar options: What was on the command line.
    @ivar endOf: Gives a Deferred for the end of the master.
    """

    reactor: Any
    options: argparse.Namespace
    out: TextIO
    err: TextIO
    endOf: Callable[[Any, Client], Deferred[None]]

    def say(self, text: str) -> None:
        """
        Print a line at once, also into a pipe.
        """
        print(text, file=self.out, flush=True)


@dataclass(frozen=True)
class _Verb:
    """
    @ivar what: What it does, the words after "can't".
    @ivar detached: What to tell whoever interrupts it.
    """

    run: Callable[[_Call, Client, str], Awaitable[None]]
    what: Callable[[argparse.Namespace], str]
    detached: str = ""


async def _status(call: _Call, client: Client, what: str) -> None:
    status = await client.status(what)
    if call.options.json:
        call.say(json.dumps(status, indent=2))
    else:
        call.say(report(status, time.time()).rstrip("\n"))


async def _reload(call: _Call, client: Client, what: str) -> None:
    if call.options.allHosts:
        await _reloadAll(call, client, what)
        return
    client.onProgress = lambda step: _showStep(call, step)
    answer = await client.ask(what, wire.Reload, progress=True)
    call.say(f"reloaded: generation {answer['generation']} serves")


async def _reloadAll(call: _Call, client: Client, what: str) -> None:
    client.onProgress = lambda step: _showHostStep(call, step)
    answer = await client.ask(what, wire.ReloadAll, progress=True)
    call.say(f"reloaded {plural(answer['hosts'], 'host')}")


def _showHostStep(call: _Call, step: dict[str, Any]) -> None:
    if step["phase"] == Phase.BEGUN.value:
        text = f"reloading ({step['done'] + 1} of {step['total']})"
    elif step["phase"] == Phase.REPLACED.value:
        text = (
            f"slot {step['slot']}: replaced by generation {step['generation']}"
            f" ({step['slotsDone']} of {step['slotsTotal']})"
        )
    elif step["phase"] == Phase.DONE.value:
        text = f"generation {step['generation']} serves"
    else:
        # The reason follows as that of the whole command.
        text = "failed"
    call.say(visible(f"host {step['host']}: {text}"))


async def _restart(call: _Call, client: Client, what: str) -> None:
    client.onProgress = lambda step: _showStep(call, step)
    await client.ask(what, wire.Restart, slot=call.options.slot, progress=True)
    call.say(f"restarted slot {call.options.slot}")


def _showStep(call: _Call, step: dict[str, Any]) -> None:
    if step["phase"] == Phase.REPLACED.value:
        call.say(
            f"slot {step['slot']}: replaced by generation {step['generation']}"
            f" ({step['done']} of {step['total']})"
        )


async def _scale(call: _Call, client: Client, what: str) -> None:
    answer = await client.ask(what, wire.Scale, wanted=call.options.wanted)
    call.say(f"scaled to {plural(answer['wanted'], 'worker')}")


async def _broadcast(call: _Call, client: Client, what: str) -> None:
    text = call.options.text
    try:
        length = len(text.encode("utf-8"))
    except UnicodeEncodeError:
        raise AdminError(what, "the text is not UTF-8", "send text") from None
    if length > wire.MAX_VALUE:
        raise AdminError(
            what, f"the text has {length} bytes", f"send at most {wire.MAX_VALUE} bytes"
        )
    answer = await client.ask(what, wire.Broadcast, text=text)
    call.say(f"sent to {plural(answer['workers'], 'worker')}")


async def _stop(call: _Call, client: Client, what: str) -> None:
    end = call.endOf(call.reactor, client)
    try:
        await client.ask(what, wire.Stop, now=call.options.now)
        await end
    except Unreachable:
        # A master that dies at this point does what it was asked to.
        await end
    except (wire.CommandFailed, CancelledError):
        end.addErrback(_cancelled)
        end.cancel()
        raise
    call.say("stopped")


def _cancelled(failure: Failure) -> None:
    failure.trap(CancelledError)


_GOES_ON = "the {} goes on in the master; watch it with: twisted-cluster status"

VERBS = {
    "status": _Verb(_status, lambda options: "show the status"),
    "reload": _Verb(
        _reload,
        lambda options: "reload all hosts" if options.allHosts else "reload",
        _GOES_ON.format("reload"),
    ),
    "restart": _Verb(
        _restart, lambda options: f"restart slot {options.slot}", _GOES_ON.format("restart")
    ),
    "scale": _Verb(
        _scale, lambda options: f"scale to {options.wanted}", _GOES_ON.format("scaling")
    ),
    "broadcast": _Verb(_broadcast, lambda options: "broadcast"),
    "stop": _Verb(_stop, lambda options: "stop", "the master goes on stopping"),
}


async def run(
    reactor: Any,
    options: argparse.Namespace,
    out: TextIO,
    err: TextIO,
    endOf: Callable[[Any, Client], Deferred[None]] = endOf,
) -> int:
    """
    Carry out one command.  Cancelling the Deferred of this coroutine
    interrupts it.

    @param options: What L{parse} gave.
    @return: The exit code.
    """
    verb = VERBS[options.command]
    what = verb.what(options)
    call = _Call(reactor, options, out, err, endOf)
    try:
        client = await connect(reactor, options.admin, what)
        try:
            await greet(reactor, client, what)
            await verb.run(call, client, what)
        finally:
            await _disconnect(client)
    except CancelledError:
        print(f"{_NAME}: interrupted; {verb.detached}".rstrip("; "), file=err)
        return INTERRUPTED
    except wire.CommandFailed as error:
        print(_explained(what, error), file=err)
        return FAILED
    except AdminError as error:
        print(f"{_NAME}: {visible(str(error))}", file=err)
        return UNREACHABLE if isinstance(error, Unreachable) else FAILED
    return DONE


async def _disconnect(client: Client) -> None:
    if client.transport is not None:
        client.transport.loseConnection()
    await client.closed


def _explained(what: str, error: wire.CommandFailed) -> str:
    """
    What the master said, and below it the traceback of the app.
    """
    reason = visible(error.reason)
    if isinstance(error, wire.ReplacementFailed):
        reason = f"can't {what}: {reason}; mend the app and try again"
    text = f"{_NAME}: {reason}"
    if error.traceback:
        text += "\n\n" + visible(error.traceback, _LINES).rstrip("\n")
    return text


class _Parser(argparse.ArgumentParser):
    """
    A parser that words its errors like the rest.
    """

    def error(self, message: str) -> NoReturn:
        """Exit with the code for wrong usage."""
        self.exit(
            USAGE, f"{_NAME}: can't read the command line: {message}; see {self.prog} --help\n"
        )


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


class _TopParser(_Parser):
    """
    The parser of the whole command line.
    """

    def format_help(self) -> str:
        """What argparse makes of commands with arguments is hard to read."""
        return _HELP


def _makeParser() -> argparse.ArgumentParser:
    parser = _TopParser(prog=_NAME)
    parser.add_argument("--admin", metavar="PATH", default=DEFAULT_ADMIN)
    parser.add_argument(
        "--version", action="version", version=f"twisted_cluster {twisted_cluster.__version__}"
    )
    commands = parser.add_subparsers(
        metavar="COMMAND", dest="command", required=True, parser_class=_Parser
    )

    def command(name: str, description: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, description=description)
        added.add_argument("--admin", metavar="PATH", default=argparse.SUPPRESS, help=_WHERE)
        return added

    status = command("status", "Show all processes, the listeners and the account of sockets.")
    status.add_argument("--json", action="store_true", help="as JSON")
    reload = command("reload", "Replace all workers without losing a connection, and wait.")
    reload.add_argument(
        "--all-hosts",
        dest="allHosts",
        action="store_true",
        help="on all hosts that share the state of this one, one after another",
    )
    scale = command("scale", "Have N workers, and wait until they are ready.")
    scale.add_argument("wanted", metavar="N", type=_whole, help="how many workers")
    restart = command("restart", "Replace the worker of one slot, or revive the slot, and wait.")
    restart.add_argument("slot", metavar="SLOT", type=_whole, help="the number of the slot")
    broadcast = command("broadcast", "Send a text to the app in all workers.")
    broadcast.add_argument("text", metavar="TEXT", help=f"at most {wire.MAX_VALUE} bytes")
    stop = command("stop", "Stop the master, and wait until it is gone.")
    stop.add_argument("--now", action="store_true", help="do not drain")
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """
    Read the command line.

    @param argv: The arguments, without the name of the command.
    @raise SystemExit: if there is nothing to do but exit: the help has been
        shown, or what is wrong.
    """
    return _makeParser().parse_args(list(argv))


def main(argv: Sequence[str] | None = None) -> int:
    """
    The command itself.

    @return: The exit code.
    """
    options = parse(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        react(_body, (options,))
    except SystemExit as exit:
        return int(exit.code or 0)
    return DONE


async def _body(reactor: Any, options: argparse.Namespace) -> None:
    """
    Run one command, which SIGINT and SIGTERM interrupt.
    """
    done = ensureDeferred(run(reactor, options, sys.stdout, sys.stderr))
    over: Deferred[None] = Deferred()

    def interrupt() -> Deferred[None] | None:
        if over.called:
            return None
        done.cancel()
        return over

    reactor.addSystemEventTrigger("before", "shutdown", interrupt)
    try:
        code = await done
    except BrokenPipeError:
        # Whoever read the output has seen enough; there is nobody to tell, and
        # the interpreter must not try again at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = FAILED
    finally:
        over.callback(None)
    raise SystemExit(code)


if __name__ == "__main__":
    sys.exit(main())
