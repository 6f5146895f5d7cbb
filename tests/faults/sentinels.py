"""A Redis with replicas and sentinels on this machine, as processes of a test."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.exceptions import RedisError

from relay.embedded import find_server
from tests.harness import PATIENCE

SERVICE = "relay"


_SERVER = """\
port {port}
bind 127.0.0.1
dir {folder}
dbfilename {port}.rdb
appenddirname aof-{port}
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
min-replicas-to-write {least}
min-replicas-max-lag 2
repl-diskless-sync-delay 0
repl-ping-replica-period 1
logfile {folder}/{port}.log
"""

_SENTINEL = """\
port {port}
bind 127.0.0.1
dir {folder}
sentinel monitor {service} 127.0.0.1 {master} 2
sentinel down-after-milliseconds {service} 1000
sentinel failover-timeout {service} 3000
sentinel parallel-syncs {service} 2
logfile {folder}/{port}.log
"""


class Watched:
    """A master, two replicas and three sentinels."""

    def __init__(self, folder: Path, *, least: int) -> None:
        """``least`` is the number of replicas without which the master takes no writes."""
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self.servers = [free_port() for _ in range(3)]
        self.sentinels = [free_port() for _ in range(3)]
        first = self.servers[0]
        for port in self.servers:
            follows = "" if port == first else f"replicaof 127.0.0.1 {first}\n"
            text = _SERVER.format(port=port, folder=folder, least=least)
            (folder / f"{port}.conf").write_text(text + follows, "utf-8")
        for port in self.sentinels:
            text = _SENTINEL.format(port=port, folder=folder, master=first, service=SERVICE)
            (folder / f"{port}.conf").write_text(text, "utf-8")

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0"

    def start(self, ports: Sequence[int]) -> None:
        for port in ports:
            command = [find_server(), str(self._folder / f"{port}.conf")]
            if port in self.sentinels:
                command.append("--sentinel")
            self._processes[port] = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def client(self, port: int) -> redis.Redis:
        return redis.Redis(port=port, socket_timeout=2)

    def in_step(self) -> bool:
        """Whether both replicas follow their master."""
        with contextlib.suppress(RedisError), self.client(self.servers[0]) as master:
            info: dict[str, Any] = master.info("replication")
            return [info.get(f"slave{number}", {}).get("state") for number in (0, 1)] == [
                "online",
                "online",
            ]
        return False

    def known(self) -> bool:
        """Whether every sentinel knows the replicas and all the others."""
        for port in self.sentinels:
            if self._processes[port].poll() is not None:
                pytest.skip("this server cannot be a sentinel")
        with contextlib.suppress(RedisError):
            return [self._seen(port) for port in self.sentinels] == [(2, 2)] * 3
        return False

    def master(self) -> int:
        """The port that most sentinels hold for the master's."""
        found = []
        for port in self.sentinels:
            with self.client(port) as sentinel:
                answer = sentinel.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
                found.append(int(answer[1]))
        return max(set(found), key=found.count)

    def kill(self, port: int) -> None:
        self._processes[port].send_signal(signal.SIGKILL)
        self._processes[port].wait(PATIENCE)

    def pause(self, port: int) -> None:
        self._processes[port].send_signal(signal.SIGSTOP)

    def resume(self, port: int) -> None:
        self._processes[port].send_signal(signal.SIGCONT)

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait(PATIENCE)

    def _seen(self, port: int) -> tuple[int, int]:
        with self.client(port) as sentinel:
            state = sentinel.sentinel_masters()[SERVICE]
            return state["num-slaves"], state["num-other-sentinels"]


@contextlib.contextmanager
def watched(folder: Path, *, least: int = 0) -> Iterator[Watched]:
    """A master with its replicas and sentinels, once they know each other."""
    group = Watched(folder, least=least)
    try:
        group.start(group.servers)
        _await(group.in_step)
        # A sentinel asks for replicas when it starts, and then only every ten seconds.
        group.start(group.sentinels)
        _await(group.known)
        yield group
    finally:
        group.stop()


def _await(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "the servers do not come together"
        time.sleep(0.05)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
