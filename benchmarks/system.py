"""Everything at once: Redis, receiver, worker and a deploy platform, as a delivery meets them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.counts import Counts
from benchmarks.hooks import Hooks
from benchmarks.lab import Lab, Requests
from benchmarks.processes import BenchmarkFailed, Running
from benchmarks.project import HOOK, SLOW, LedgerFsync, Project, relay_yaml
from benchmarks.store import Store
from benchmarks.tree import OURS, Tree

CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class System:
    """The parts. Receiver and worker share the core under test."""

    store: Store
    hooks: Hooks
    project: Project
    receiver: Running
    port: int

    @property
    def counts(self) -> Counts:
        """What became of its deliveries."""
        return self.project.counts

    def send(
        self, lab: Lab, requests: Requests, count: int, connections: int = CONNECTIONS
    ) -> None:
        """Send ``count`` webhooks. Raises BenchmarkFailed unless each is accepted."""
        load = lab.load(self.port, requests, connections=connections, seconds=600, timeout=600)
        if load.statuses != {202: count}:
            raise BenchmarkFailed(f"answered {load.statuses}")


@contextmanager
def open_system(
    lab: Lab,
    *,
    milliseconds: int = 0,
    slow: int | None = None,
    tree: Tree = OURS,
    fsync: LedgerFsync = "full",
) -> Iterator[System]:
    """All of it but the worker; the platform takes so many milliseconds for a deploy, and ``slow``
    for one of acme/slow."""
    with ExitStack() as stack:
        folder = lab.new_folder()
        store = Store(folder / "redis", core=lab.cores.others)
        stack.callback(store.stop)
        hooks = Hooks(lab)
        stack.callback(hooks.stop)
        urls = {HOOK: hooks.url(milliseconds)}
        if slow is not None:
            urls[SLOW] = hooks.url(slow)
        project = Project(folder, store, relay_yaml(urls), tree=tree, fsync=fsync)
        receiver, port = project.serve(core=lab.cores.tested)
        stack.callback(receiver.stop)
        yield System(store, hooks, project, receiver, port)


@contextmanager
def working(lab: Lab, project: Project, *, in_flight: int | None = None) -> Iterator[Running]:
    """A worker for as long as the block lasts; then it is killed, whatever it does."""
    worker = project.worker(core=lab.cores.tested, in_flight=in_flight)
    try:
        yield worker
    finally:
        worker.kill()
