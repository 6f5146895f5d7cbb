"""How one would write a receiver with rq: check, parse, ``Queue.enqueue``, 202.

``python benchmarks/peer.py PORT SECRET REDIS_SOCKET``
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys

import redis
import uvloop
from aiohttp import web
from rq import Queue


class Peer:
    """The handler; it enqueues in the event loop."""

    def __init__(self, secret: str, queue: Queue) -> None:
        self._key = hmac.new(secret.encode(), digestmod=hashlib.sha256)
        self._queue = queue

    async def handle(self, request: web.Request) -> web.Response:
        """Check the signature, parse the body and queue a job with it."""
        body = await request.read()
        mac = self._key.copy()
        mac.update(body)
        sent = request.headers.get("X-Hub-Signature-256", "")
        if not hmac.compare_digest(f"sha256={mac.hexdigest()}", sent):
            return web.Response(status=401)
        self._queue.enqueue("tasks.deploy", json.loads(body))
        return web.Response(status=202)


def main() -> None:
    """Serve until SIGTERM."""
    port, secret, socket = sys.argv[1:4]
    queue = Queue("deploy-relay", connection=redis.Redis(unix_socket_path=socket))
    app = web.Application(client_max_size=25 * 1024 * 1024)
    app.router.add_post("/hooks/github", Peer(secret, queue).handle)
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(port),
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
