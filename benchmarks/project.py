"""A project for the benchmarks: relay.yaml, settings, and the commands of deploy-relay."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from benchmarks.counts import Counts, LedgerCounts, RedisCounts
from benchmarks.payloads import SECRET
from benchmarks.processes import Running, free_port
from benchmarks.store import QUEUE, Store
from benchmarks.tree import OURS, Tree

LedgerFsync = Literal["full", "normal"]

HOOK = "hook"
"""The target of the benchmark's own pushes."""

SLOW, SLOW_REPO = "slow", "acme/slow"
"""The target of pushes to another repository."""

CONCURRENCY = 1_000
"""Calls of a target at a time: more than a worker makes, so that it is the worker that is measured
and not its waiting for the target."""

NOWHERE = "http://127.0.0.1:9/"


def relay_yaml(
    targets: Mapping[str, str] | None = None,
    *,
    routes: int = 10,
    repositories: int = 10,
    paths: bool = False,
) -> str:
    """Routes over repositories; the last ones are those of the benchmark's own pushes.

    ``targets`` are names and URLs; ``hook`` is one of them, ``slow`` may be.
    """
    urls = targets or {HOOK: NOWHERE}
    lines = ["sources:\n  github: {provider: github, secrets: [{env: BENCHMARK_SECRET}]}\ntargets:"]
    lines += [
        f"  {name}: {{preset: http, url: '{url}', query: {{sha: '{{{{ event.sha }}}}'}}, "
        f"timeout: 40s, concurrency: {CONCURRENCY}, retry: {{attempts: 1}}}}"
        for name, url in urls.items()
    ]
    lines.append("routes:")
    lines += [
        f"  - {{name: route {number}, repo: acme/service-{number % repositories}, on: push, "
        f"branches: [main, 'release/{number}/*'], deploy: [{HOOK}]}}"
        for number in range(routes - 1)
    ]
    filtered = "paths: ['apps/**'], " if paths else ""
    own = {"web": ("acme/web", HOOK)}
    if SLOW in urls:
        own["slow"] = (SLOW_REPO, SLOW)
    lines += [
        f"  - {{name: {name}, repo: {repo}, on: push, branches: [main, 'change-*'], {filtered}"
        f"deploy: [{target}]}}"
        for name, (repo, target) in own.items()
    ]
    return "\n".join([*lines, ""])


class Project:
    """A folder with relay.yaml, and the environment that its processes need."""

    def __init__(
        self,
        folder: Path,
        store: Store,
        yaml: str = "",
        *,
        tree: Tree = OURS,
        fsync: LedgerFsync = "full",
    ) -> None:
        self.folder = folder
        self.tree = tree
        self._store = store
        config, data = folder / "relay.yaml", folder / "data"
        config.write_text(yaml or relay_yaml(), encoding="utf-8")
        self.environ = {
            "RELAY_CONFIG": str(config),
            "RELAY_REDIS_URL": store.url,
            "RELAY_DATA_DIR": str(data),
            "RELAY_QUEUE": QUEUE,
            "RELAY_ALLOWED_NETWORKS": "127.0.0.0/8",
            "BENCHMARK_SECRET": SECRET,
        }
        self.counts: Counts = RedisCounts(store)
        if tree.has_ledger:
            self.environ["RELAY_LEDGER_FSYNC"] = fsync
            self.counts = LedgerCounts(data)

    def serve(self, *, core: int | None, processes: int = 1) -> tuple[Running, int]:
        """The receiver, listening, and its port."""
        port = free_port()
        command = [*self.tree.command, "serve", "--port", str(port)]
        if processes > 1:
            command += ["--processes", str(processes)]
        running = self._run("serve", command, core, self.environ)
        running.wait_for_port(port)
        return running, port

    def worker(self, *, core: int | None, in_flight: int | None = None) -> Running:
        """`deploy-relay worker`, started."""
        more = {} if in_flight is None else {"RELAY_JOBS_IN_FLIGHT": str(in_flight)}
        running = self._run("worker", [*self.tree.command, "worker"], core, self.environ | more)
        running.wait_for_output("worker.started")
        return running

    def stock_worker(self, *, core: int | None) -> Running:
        """`rq worker`, which runs the same jobs."""
        rq = Path(sys.executable).with_name("rq")
        command = [str(rq) if rq.exists() else shutil.which("rq") or "rq", "worker", QUEUE]
        command += ["-S", "json", "--url", self._store.url, "--logging_level", "WARNING"]
        return self._run("rq", command, core, self.environ)

    def preloaded_worker(self, *, core: int | None) -> Running:
        """rq's worker as one would tune it: with the project imported before it forks."""
        command = [sys.executable, "-m", "benchmarks.preloaded", self._store.url, QUEUE]
        return self._run("preloaded", command, core, self.environ)

    def _run(
        self, name: str, command: list[str], core: int | None, environ: Mapping[str, str]
    ) -> Running:
        return Running(
            name, command, folder=self.folder, core=core, environ=environ, root=self.tree.root
        )
