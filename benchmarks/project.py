"""A project for the benchmarks: relay.yaml, settings, and the commands of deploy-relay."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.payloads import SECRET
from benchmarks.processes import Running, free_port
from benchmarks.store import Store

COMMAND = (sys.executable, "-m", "relay.cli")

ROUTES = """\
sources:
  github: {provider: github, secrets: [{env: BENCHMARK_SECRET}]}
targets:
  hook: {preset: http, url: {env: BENCHMARK_HOOK}, success: {status: [200]}}
routes:
"""


def relay_yaml(routes: int = 10, repositories: int = 10) -> str:
    """Routes over repositories; the last route is that of the benchmark's own pushes."""
    lines = [
        f"  - {{name: route {number}, repo: acme/service-{number % repositories}, on: push, "
        f"branches: [main, 'release/{number}/*'], deploy: [hook]}}\n"
        for number in range(routes - 1)
    ]
    own = "  - {name: web, repo: acme/web, on: push, branches: [main], deploy: [hook]}\n"
    return ROUTES + "".join(lines) + own


class Project:
    """A folder with relay.yaml, and the environment that its processes need."""

    def __init__(
        self, folder: Path, store: Store, *, hook: str = "http://127.0.0.1:9/", yaml: str = ""
    ) -> None:
        self.folder = folder
        config = folder / "relay.yaml"
        config.write_text(yaml or relay_yaml(), encoding="utf-8")
        self.environ = {
            "RELAY_CONFIG": str(config),
            "RELAY_REDIS_URL": store.url,
            "BENCHMARK_SECRET": SECRET,
            "BENCHMARK_HOOK": hook,
        }

    def serve(self, *, core: int | None, processes: int = 1) -> tuple[Running, int]:
        """The receiver, listening, and its port."""
        port = free_port()
        command = [*COMMAND, "serve", "--port", str(port)]
        if processes > 1:
            command += ["--processes", str(processes)]
        running = Running("serve", command, folder=self.folder, core=core, environ=self.environ)
        running.wait_for_port(port)
        return running, port
