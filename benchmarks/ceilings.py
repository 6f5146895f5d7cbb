"""What aiohttp can do at best: the ceilings that intake is measured against.

``python benchmarks/ceilings.py PORT SECRET``. Without a secret it is C0: read the body, answer 202.
With one it is C1: C0 and the check of the signature.
"""

from __future__ import annotations

import hashlib
import hmac
import sys

import uvloop
from aiohttp import web


async def c0(request: web.Request) -> web.Response:
    """Read the body and answer."""
    await request.read()
    return web.Response(status=202)


class C1:
    """C0 that only answers who knows the secret."""

    def __init__(self, secret: str) -> None:
        self._key = hmac.new(secret.encode(), digestmod=hashlib.sha256)

    async def handle(self, request: web.Request) -> web.Response:
        """Read the body, check its signature, and answer."""
        body = await request.read()
        mac = self._key.copy()
        mac.update(body)
        sent = request.headers.get("X-Hub-Signature-256", "")
        if not hmac.compare_digest(f"sha256={mac.hexdigest()}", sent):
            return web.Response(status=401)
        return web.Response(status=202)


def main() -> None:
    """Serve until SIGTERM."""
    app = web.Application(client_max_size=25 * 1024 * 1024)
    secret = sys.argv[2] if len(sys.argv) > 2 else ""
    app.router.add_post("/hooks/github", C1(secret).handle if secret else c0)
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
