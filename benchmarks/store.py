"""A Redis of the benchmark's own, with the settings of the embedded default."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import redis
from rq import Queue

from benchmarks.processes import Running
from relay.embedded import server_command

Fsync = Literal["everysec", "always"]

QUEUE = "deploy-relay"


class Store:
    """One server with empty data; every measurement has a new one."""

    def __init__(self, folder: Path, *, core: int | None, fsync: Fsync = "everysec") -> None:
        folder.mkdir()
        socket = folder / "redis.sock"
        self.url = f"unix://{socket}"
        # A rewrite of the append-only file would fall into some measurements and not into others.
        command = [*server_command(socket, fsync), "--auto-aof-rewrite-percentage", "0"]
        self.running = Running("redis", command, folder=folder, core=core)
        self.client = redis.Redis(unix_socket_path=str(socket))
        self.running.wait_for(self._answers, "answer")

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.RedisError:
            return False

    def waiting(self, queue: str = QUEUE) -> int:
        """Jobs in a queue."""
        return int(self.client.llen(Queue.redis_queue_namespace_prefix + queue))

    def memory(self) -> int:
        """Bytes of its data."""
        return int(self.client.info("memory")["used_memory"])

    def version(self) -> str:
        """Its name and version."""
        about: dict[str, str] = self.client.info("server")
        if "valkey_version" in about:
            return f"valkey {about['valkey_version']}"
        return f"redis {about['redis_version']}"

    def stop(self) -> None:
        """End it."""
        self.client.close()
        self.running.stop()
