"""A project for the benchmarks: relay.yaml, settings, and the commands of deploy-relay."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.payloads import SECRET
from benchmarks.processes import Running, free_port
from benchmarks.store import QUEUE, Store

COMMAND = (sys.executable, "-m", "relay.cli")

HOOK = "hook"
"""The target of the benchmark's own pushes."""

NOWHERE = "http://127.0.0.1:9/"


def relay_yaml(
    targets: Mapping[str, str] | None = None,
    *,
    routes: int = 10,
    repositories: int = 10,
    paths: bool = False,
) -> str:
    """Routes over repositories; the last route is that of the benchmark's own pushes.

    ``targets`` are names and URLs; ``hook`` is one of them.
    """
    lines = ["sources:\n  github: {provider: github, secrets: [{env: BENCHMARK_SECRET}]}\ntargets:"]
    lines += [
        f"  {name}: {{preset: http, url: '{url}', query: {{sha: '{{{{ event.sha }}}}'}}, "
        "timeout: 40s, retry: {attempts: 1}}"
        for name, url in (targets or {HOOK: NOWHERE}).items()
    ]
    lines.append("routes:")
    lines += [
        f"  - {{name: route {number}, repo: acme/service-{number % repositories}, on: push, "
        f"branches: [main, 'release/{number}/*'], deploy: [{HOOK}]}}"
        for number in range(routes - 1)
    ]
    filtered = "paths: ['apps/**'], " if paths else ""
    own = (
        f"  - {{name: web, repo: acme/web, on: push, branches: [main], {filtered}"
        f"deploy: [{HOOK}]}}\n"
    )
    return "\n".join([*lines, own])


class Project:
    """A folder with relay.yaml, and the environment that its processes need."""

    def __init__(self, folder: Path, store: Store, yaml: str = "") -> None:
        self.folder = folder
        self._store = store
        config = folder / "relay.yaml"
        config.write_text(yaml or relay_yaml(), encoding="utf-8")
        self.environ = {
            "RELAY_CONFIG": str(config),
            "RELAY_REDIS_URL": store.url,
            "RELAY_DATA_DIR": str(folder / "data"),
            "RELAY_QUEUE": QUEUE,
            "RELAY_ALLOWED_NETWORKS": "127.0.0.0/8",
            "BENCHMARK_SECRET": SECRET,
        }

    def serve(
        self, *, core: int | None, processes: int = 1, payloads: bool = True
    ) -> tuple[Running, int]:
        """The receiver, listening, and its port. Without ``payloads`` it keeps none."""
        port = free_port()
        command = [*COMMAND, "serve", "--port", str(port)]
        if processes > 1:
            command += ["--processes", str(processes)]
        more = {} if payloads else {"RELAY_PAYLOADS_KEPT": "0"}
        environ = self.environ | more
        running = Running("serve", command, folder=self.folder, core=core, environ=environ)
        running.wait_for_port(port)
        return running, port

    def worker(self, *, core: int | None, in_flight: int | None = None) -> Running:
        """`deploy-relay worker`, started."""
        more = {} if in_flight is None else {"RELAY_JOBS_IN_FLIGHT": str(in_flight)}
        running = Running(
            "worker",
            [*COMMAND, "worker"],
            folder=self.folder,
            core=core,
            environ=self.environ | more,
        )
        running.wait_for_output("worker.started")
        return running

    def stock_worker(self, *, core: int | None) -> Running:
        """`rq worker`, which runs the same jobs."""
        rq = Path(sys.executable).with_name("rq")
        command = [str(rq) if rq.exists() else shutil.which("rq") or "rq", "worker", QUEUE]
        command += ["--url", self._store.url, "--logging_level", "WARNING"]
        return Running("rq", command, folder=self.folder, core=core, environ=self.environ)

    def preloaded_worker(self, *, core: int | None) -> Running:
        """rq's worker as one would tune it: with the project imported before it forks."""
        command = [sys.executable, "-m", "benchmarks.preloaded", self._store.url, QUEUE]
        return Running("preloaded", command, folder=self.folder, core=core, environ=self.environ)
