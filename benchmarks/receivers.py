"""The receivers that intake compares, each started in the same way."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.lab import Lab
from benchmarks.payloads import SECRET
from benchmarks.processes import Running, free_port
from benchmarks.project import Project
from benchmarks.store import Fsync, Store

WEBHOOK = "webhook"


class Receiver(NamedTuple):
    """A receiver that listens, and the Redis it writes to, if any."""

    running: Running
    port: int
    store: Store | None = None

    def stop(self) -> None:
        """End both."""
        self.running.stop()
        if self.store:
            self.store.stop()


Start = Callable[[Lab, Fsync], Receiver]


def _here(file: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name(file))]


def _c0(lab: Lab, _: Fsync) -> Receiver:
    port = free_port()
    return _listening(lab, "c0", [*_here("ceilings.py"), str(port)], port)


def _c1(lab: Lab, _: Fsync) -> Receiver:
    port = free_port()
    return _listening(lab, "c1", [*_here("ceilings.py"), str(port), SECRET], port)


def _webhook(lab: Lab, _: Fsync) -> Receiver:
    """adnanh/webhook with a rule that checks the signature and then does not match."""
    port = free_port()
    folder = lab.new_folder()
    signed = {
        "type": "payload-hmac-sha256",
        "secret": SECRET,
        "parameter": {"source": "header", "name": "X-Hub-Signature-256"},
    }
    # A wrong signature would be an error there, logged and answered 500, so another rule fails.
    elsewhere = {
        "type": "value",
        "value": "refs/heads/elsewhere",
        "parameter": {"source": "payload", "name": "ref"},
    }
    rules = {"and": [{"match": signed}, {"match": elsewhere}]}
    hook = {"id": "github", "execute-command": "/bin/true", "trigger-rule": rules}
    file = folder / "hooks.json"
    file.write_text(json.dumps([hook]), encoding="utf-8")
    command = [WEBHOOK, "-ip", "127.0.0.1", "-port", str(port), "-hooks", str(file)]
    return _listening(lab, "webhook", command, port)


def _enqueue(lab: Lab, fsync: Fsync) -> Receiver:
    port = free_port()
    store = Store(lab.new_folder() / "redis", core=lab.cores.others, fsync=fsync)
    socket = store.url.removeprefix("unix://")
    receiver = _listening(lab, "enqueue", [*_here("peer.py"), str(port), SECRET, socket], port)
    return receiver._replace(store=store)


def ours(processes: int = 1) -> Start:
    """`deploy-relay serve`."""

    def start(lab: Lab, fsync: Fsync) -> Receiver:
        folder = lab.new_folder()
        store = Store(folder / "redis", core=lab.cores.others, fsync=fsync)
        core = lab.cores.tested if processes == 1 else None
        running, port = Project(folder, store).serve(core=core, processes=processes)
        return Receiver(running, port, store)

    return start


def _listening(lab: Lab, name: str, command: list[str], port: int) -> Receiver:
    running = Running(name, command, folder=lab.new_folder(), core=lab.cores.tested)
    running.wait_for_port(port)
    return Receiver(running, port)


STARTS: dict[str, Start] = {
    "C0": _c0,
    "C1": _c1,
    "ours": ours(),
    "webhook": _webhook,
    "enqueue": _enqueue,
}

ANSWERS = {"webhook": 200}
"""The status that says that a request was processed, where it is not 202."""


def missing() -> dict[str, str]:
    """Receivers that cannot be started here, and what to install."""
    if shutil.which(WEBHOOK):
        return {}
    return {"webhook": "not installed (Debian package `webhook`)"}
