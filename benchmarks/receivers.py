"""The receivers that intake compares, each started in the same way."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import NamedTuple

from benchmarks.lab import Lab
from benchmarks.payloads import SECRET
from benchmarks.processes import ROOT, Running, free_port
from benchmarks.project import COMMAND, Project, relay_yaml
from benchmarks.store import Fsync, Store

WEBHOOK = "webhook"


class Receiver(NamedTuple):
    """A receiver that listens, and the Redis it writes to, if any."""

    running: Running
    port: int
    store: Store | None = None

    def stop(self) -> None:
        """End both."""
        try:
            self.running.stop()
        finally:
            if self.store:
                self.store.stop()


Start = Callable[[Lab, Fsync], Receiver]


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{name}"]


def _c0(lab: Lab, _: Fsync) -> Receiver:
    port = free_port()
    return _listening(lab, "c0", [*_module("ceilings"), str(port)], port)


def _c1(lab: Lab, _: Fsync) -> Receiver:
    port = free_port()
    return _listening(lab, "c1", [*_module("ceilings"), str(port), SECRET], port)


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
    receiver = _listening(lab, "enqueue", [*_module("peer"), str(port), SECRET, socket], port)
    return receiver._replace(store=store)


def ours(processes: int = 1, *, paths: bool = False, payloads: bool = True) -> Start:
    """`deploy-relay serve`; with ``paths`` the route filters by changed files, which are read,
    without ``payloads`` it keeps none."""

    def start(lab: Lab, fsync: Fsync) -> Receiver:
        folder = lab.new_folder()
        store = Store(folder / "redis", core=lab.cores.others, fsync=fsync)
        core = lab.cores.tested if processes == 1 else None
        running, port = Project(folder, store, relay_yaml(paths=paths)).serve(
            core=core, processes=processes, payloads=payloads
        )
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
    "ours+paths": ours(paths=True),
    "ours+no-payloads": ours(payloads=False),
    "webhook": _webhook,
    "enqueue": _enqueue,
}

ANSWERS = {"webhook": 200}
"""The status that says that a request was processed, where it is not 202."""


@functools.cache
def has_processes() -> bool:
    """Whether the tree that is measured can run several receiver processes."""
    said = subprocess.run([*COMMAND, "serve", "--help"], cwd=ROOT, capture_output=True, text=True)
    return "--processes" in said.stdout


def missing() -> dict[str, str]:
    """Receivers that cannot be started here, and what to install."""
    if shutil.which(WEBHOOK):
        return {}
    return {"webhook": "not installed (Debian package `webhook`)"}
