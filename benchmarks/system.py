"""Everything at once: Redis, receiver, worker and a deploy platform, as a delivery meets them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.hooks import Hooks
from benchmarks.jobs import Jobs
from benchmarks.lab import Lab
from benchmarks.processes import Running
from benchmarks.project import HOOK, Project, relay_yaml
from benchmarks.store import Store


@dataclass(frozen=True, slots=True)
class System:
    """The parts. Receiver and worker share the core under test."""

    store: Store
    hooks: Hooks
    project: Project
    receiver: Running
    port: int
    jobs: Jobs


@contextmanager
def open_system(lab: Lab, *, milliseconds: int = 0, routes: int = 10) -> Iterator[System]:
    """All of it but the worker; the platform takes so many milliseconds for a deploy."""
    with ExitStack() as stack:
        folder = lab.new_folder()
        store = Store(folder / "redis", core=lab.cores.others)
        stack.callback(store.stop)
        hooks = Hooks(lab)
        stack.callback(hooks.stop)
        yaml = relay_yaml({HOOK: hooks.url(milliseconds)}, routes=routes)
        project = Project(folder, store, yaml)
        receiver, port = project.serve(core=lab.cores.tested)
        stack.callback(receiver.stop)
        yield System(store, hooks, project, receiver, port, Jobs(store))


@contextmanager
def working(lab: Lab, project: Project, *, in_flight: int | None = None) -> Iterator[Running]:
    """A worker for as long as the block lasts; then it is killed, whatever it does."""
    worker = project.worker(core=lab.cores.tested, in_flight=in_flight)
    try:
        yield worker
    finally:
        worker.kill()
