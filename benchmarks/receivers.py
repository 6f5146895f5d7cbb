"""The receivers that intake compares, each started in the same way."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.lab import Lab
from benchmarks.payloads import SECRET
from benchmarks.processes import Running, free_port
from benchmarks.project import LedgerFsync, Project, relay_yaml
from benchmarks.store import Store
from benchmarks.tree import OURS, Tree, before

WEBHOOK = "webhook"


class Receiver(NamedTuple):
    """A receiver that listens, and the Redis it writes to, if any."""

    running: Running
    port: int
    store: Store | None = None
    waiting: Callable[[], int] | None = None
    """Returns how many deliveries it has kept for a worker."""

    def stop(self) -> None:
        """End both."""
        try:
            self.running.stop()
        finally:
            if self.store:
                self.store.stop()


Start = Callable[[Lab], Receiver]


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{name}"]


def _c0(lab: Lab) -> Receiver:
    port = free_port()
    return _listening(lab, "c0", [*_module("ceilings"), str(port)], port)


def _c1(lab: Lab) -> Receiver:
    port = free_port()
    return _listening(lab, "c1", [*_module("ceilings"), str(port), SECRET], port)


def _webhook(lab: Lab) -> Receiver:
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


def _enqueue(lab: Lab) -> Receiver:
    port = free_port()
    store = Store(lab.new_folder() / "redis", core=lab.cores.others)
    socket = store.url.removeprefix("unix://")
    receiver = _listening(lab, "enqueue", [*_module("peer"), str(port), SECRET, socket], port)
    return receiver._replace(store=store, waiting=store.waiting)


def relay(
    tree: Tree = OURS, *, processes: int = 1, paths: bool = False, fsync: LedgerFsync = "full"
) -> Start:
    """`deploy-relay serve` of a tree; with ``paths`` the route filters by changed files, which are
    read."""

    def start(lab: Lab) -> Receiver:
        folder = lab.new_folder()
        store = Store(folder / "redis", core=lab.cores.others)
        core = lab.cores.tested if processes == 1 else None
        project = Project(folder, store, relay_yaml(paths=paths), tree=tree, fsync=fsync)
        running, port = project.serve(core=core, processes=processes)
        return Receiver(running, port, store, project.counts.waiting)

    return start


def _listening(lab: Lab, name: str, command: list[str], port: int) -> Receiver:
    running = Running(name, command, folder=lab.new_folder(), core=lab.cores.tested)
    running.wait_for_port(port)
    return Receiver(running, port)


BEFORE = "before"

STARTS: dict[str, Start] = {
    "C0": _c0,
    "C1": _c1,
    "ours": relay(),
    "ours+normal": relay(fsync="normal"),
    "ours+paths": relay(paths=True),
    "webhook": _webhook,
    "enqueue": _enqueue,
}


def start_of(name: str) -> Start:
    """How a receiver is started. Raises BenchmarkFailed and KeyError."""
    former = before() if name == BEFORE else None
    return relay(former) if former else STARTS[name]


ANSWERS = {"webhook": 200}
"""The status that says that a request was processed, where it is not 202."""


def missing() -> dict[str, str]:
    """Receivers that cannot be started here, and what to do about it."""
    absent = {}
    if not shutil.which(WEBHOOK):
        absent["webhook"] = "not installed (Debian package `webhook`)"
    if before() is None:
        absent[BEFORE] = "RELAY_BENCH_BEFORE names no checkout"
    return absent
