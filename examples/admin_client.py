"""
A tool that speaks the admin protocol with nothing but Twisted.

It shows the state of each worker, reloads the cluster, and tells of the
progress.  Run it in the directory of the master, or name the admin socket::

    python admin_client.py
    python admin_client.py /run/hello/admin.sock

It has to be run by the user of the master, or by root.
"""

import json
import sys
from typing import Any

from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.internet.task import react
from twisted.protocols.amp import AMP, Boolean, Command, Integer, String, Unicode


class Refused(Exception):
    """The master does not do it now."""


class ReloadFailed(Exception):
    """The new workers are no good; the old ones go on serving."""


class Hello(Command):
    response = [(b"protocol", Integer()), (b"version", Unicode()), (b"pid", Integer())]


class Status(Command):
    arguments = [(b"part", Integer(optional=True))]
    response = [(b"part", Integer()), (b"parts", Integer()), (b"json", String())]


class Reload(Command):
    arguments = [(b"progress", Boolean(optional=True))]
    response = [(b"generation", Integer())]
    errors = {Refused: b"REFUSED", ReloadFailed: b"RELOAD_FAILED"}


class Progress(Command):
    requiresAnswer = False
    arguments = [
        (b"generation", Integer()),
        (b"phase", Unicode()),
        (b"slot", Integer(optional=True)),
        (b"done", Integer()),
        (b"total", Integer()),
        (b"reason", Unicode()),
    ]


class Tool(AMP):
    @Progress.responder
    def progress(self, phase: str, slot: int, done: int, total: int, **more: Any) -> dict[str, Any]:
        if phase == "replaced":
            print(f"slot {slot} is replaced, {done} of {total}", flush=True)
        return {}

    async def status(self) -> Any:
        answer = await self.callRemote(Status)
        parts = [answer["json"]]
        for part in range(1, answer["parts"]):
            parts.append((await self.callRemote(Status, part=part))["json"])
        return json.loads(b"".join(parts))


async def main(reactor: Any, path: str = "twisted-cluster.sock") -> None:
    tool = await connectProtocol(UNIXClientEndpoint(reactor, path), Tool())
    try:
        hello = await tool.callRemote(Hello)
        if hello["protocol"] != 1:
            raise SystemExit(f"can't speak protocol {hello['protocol']}")
        for worker in (await tool.status())["workers"]:
            print(f"slot {worker['slot']} is {worker['state']}", flush=True)
        answer = await tool.callRemote(Reload, progress=True)
        print(f"generation {answer['generation']} serves", flush=True)
    except (Refused, ReloadFailed) as error:
        raise SystemExit(str(error)) from None
    finally:
        tool.transport.loseConnection()


if __name__ == "__main__":
    react(main, sys.argv[1:])
