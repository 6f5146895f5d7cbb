"""The processes that the order machine drives: a receiver, two workers, Redis and a platform.

They are started once and live through all examples. ``RELAY_BIN`` names the command, so that
another release can be driven, too.
"""

from __future__ import annotations

import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from relay.embedded import server_command
from tests.faults.order_platform import Platform
from tests.harness import COMMAND, GITHUB_SECRET, github_headers

TARGETS = ("keep", "newest")
"""``keep`` deploys each state in its order, ``newest`` only the newest of those that wait."""

TIMEOUT, MARGIN = 2, 1
"""Seconds of a call and of what its claim adds to that."""

CLAIM = TIMEOUT + MARGIN

PATIENCE = 90
"""Seconds that anything may take."""

_TARGET = (
    "{{preset: http, url: {{env: TEST_{upper}}}, timeout: {timeout}s, connect_timeout: 1s, "
    "breaker: null, supersede: {supersede}, retry: {{attempts: 50, base: 10ms, cap: 200ms}}, "
    'query: {{repo: "{{{{ event.repo }}}}", ref: "{{{{ event.ref }}}}", '
    'sha: "{{{{ event.sha }}}}"}}}}'
)


def relay_command() -> list[str]:
    """The command of the relay that is driven."""
    return shlex.split(os.environ.get("RELAY_BIN", "")) or list(COMMAND)


def _yaml() -> str:
    targets = "\n".join(
        f"  {name}: "
        + _TARGET.format(
            upper=name.upper(), timeout=TIMEOUT, supersede=str(name == "newest").lower()
        )
        for name in TARGETS
    )
    return (
        "sources:\n  github: {provider: github, secrets: [{env: TEST_SECRET}]}\n"
        f"targets:\n{targets}\n"
        "routes:\n"
        '  - {name: all, repo: "acme/*", on: push, deploy: [keep, newest]}\n'
    )


@dataclass
class World:
    """All processes, and the faults that they can have."""

    folder: Path
    platform: Platform = field(default_factory=Platform)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    port: int = 0
    is_redis_away: bool = False

    def start(self) -> None:
        """Start everything, and return once it is ready."""
        self.platform.start()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        (self.folder / "relay.yaml").write_text(_yaml(), encoding="utf-8")
        self.start_redis()
        for name in ("receiver", "worker-1", "worker-2"):
            self._start(name)
        self._until(self._is_ready, "the receiver is not ready")

    def stop(self) -> None:
        """End everything."""
        for name in ("receiver", "worker-1", "worker-2", "redis"):
            process = self.processes.get(name)
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
        self.platform.stop()

    def send(self, body: bytes, delivery: str) -> None:
        """Send a webhook until it is acknowledged, as GitLab does."""
        headers = github_headers(body, delivery=delivery)

        def acknowledged() -> bool:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            try:
                connection.request("POST", "/hooks/github", body, headers)
                response = connection.getresponse()
                text = response.read()
            except (OSError, http.client.HTTPException):
                return False
            finally:
                connection.close()
            assert response.status in (200, 202, 503), text
            return response.status != 503

        self._until(acknowledged, "nobody takes the webhook", pause=0.05)

    def kill_workers(self) -> None:
        """Kill both workers and start them again."""
        for name in ("worker-1", "worker-2"):
            self.processes[name].kill()
            self.processes[name].wait(PATIENCE)
            self._start(name)

    def freeze_workers(self) -> None:
        """Stop both workers for longer than a claim holds."""
        workers = [self.processes[name] for name in ("worker-1", "worker-2")]
        for worker in workers:
            worker.send_signal(signal.SIGSTOP)
        # The fault itself: a stretch of time in which the workers do nothing.
        time.sleep(CLAIM + 1.5)
        for worker in workers:
            worker.send_signal(signal.SIGCONT)

    def flush(self) -> None:
        """Empty Redis."""
        self._redis("FLUSHALL")

    def stop_redis(self) -> None:
        """Kill Redis and throw away what it had."""
        self.processes["redis"].kill()
        self.processes["redis"].wait(PATIENCE)
        for file in self.redis_folder.glob("appendonlydir/*"):
            file.unlink()
        self.is_redis_away = True

    def start_redis(self) -> None:
        """Start Redis, and return once it answers."""
        self.redis_folder.mkdir(exist_ok=True)
        self.processes["redis"] = subprocess.Popen(
            server_command(self.redis_socket, "everysec"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._until(lambda: self._redis("PING") == b"+PONG\r\n", "Redis does not answer")
        self.is_redis_away = False

    def settle(self) -> None:
        """Return once nothing is left to be called. Whatever was broken is mended first."""
        self.platform.let_go()
        if self.is_redis_away:
            self.start_redis()
        for name in ("receiver", "worker-1", "worker-2"):
            if self.processes[name].poll() is not None:
                self._start(name)
        drained = subprocess.run(
            [*relay_command(), "drain", "--all", "--timeout", f"{PATIENCE}s"],
            env=self._environ(),
            capture_output=True,
            timeout=PATIENCE + 30,
            check=False,
        )
        assert drained.returncode == 0, drained

    @property
    def redis_folder(self) -> Path:
        """Where Redis keeps its files."""
        return self.folder / "redis"

    @property
    def redis_socket(self) -> Path:
        """Where Redis listens."""
        return self.redis_folder / "r.sock"

    def _start(self, name: str) -> None:
        command = "serve" if name == "receiver" else "worker"
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*relay_command(), command], env=self._environ(), stdout=log, stderr=log
            )

    def _environ(self) -> dict[str, str]:
        return {
            **os.environ,
            "RELAY_CONFIG": str(self.folder / "relay.yaml"),
            "RELAY_REDIS_URL": f"unix://{self.redis_socket}",
            "RELAY_DATA_DIR": str(self.folder / "data"),
            "RELAY_PORT": str(self.port),
            "RELAY_ALLOWED_NETWORKS": "127.0.0.0/8",
            "RELAY_TEST_CLAIM_MARGIN": str(MARGIN),
            "TEST_SECRET": GITHUB_SECRET,
            **{f"TEST_{name.upper()}": f"{self.platform.url}/{name}" for name in TARGETS},
        }

    def _is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            status = json.loads(connection.getresponse().read())["status"]
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return bool(status == "ready")

    def _redis(self, command: str) -> bytes:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(self.redis_socket))
                client.sendall(f"{command}\r\n".encode())
                return client.recv(100)
        except OSError:
            return b""

    def _until(self, condition: object, reason: str, *, pause: float = 0.02) -> None:
        deadline = time.monotonic() + PATIENCE
        assert callable(condition)
        while not condition():
            assert time.monotonic() < deadline, f"{reason}; see {self.folder}"
            time.sleep(pause)


def new_world() -> World:
    """A world in a folder of its own near the root, as the path of a Unix socket is bounded."""
    return World(Path(tempfile.mkdtemp(prefix="order-")))
