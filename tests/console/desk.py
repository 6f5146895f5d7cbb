"""Whoever sits before the console in a test."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import aiohttp
import redis
from aiohttp import CookieJar, web
from yarl import URL

from config.loading import load
from config.settings import Settings
from relay import audit
from relay.archive import Archive
from relay.commands.console import powers
from relay.console.app import assemble
from relay.console.context import Context, planned
from relay.console.history import History
from relay.console.listening import Runner
from relay.console.sessions import Sessions
from relay.store import connect_async
from relay.tokens import Role, create
from tests.harness import SECRETS


class Answer(NamedTuple):
    status: int
    body: Any
    """What JSON says, or text."""
    headers: Mapping[str, str]
    cookies: Mapping[str, Any]


@dataclass(slots=True)
class Desk:
    """Asks as a program with a token, or as a browser with cookies."""

    url: str
    tokens: Mapping[Role, str]
    store: redis.Redis
    stream: io.BytesIO
    http: aiohttp.ClientSession

    async def ask(
        self,
        method: str,
        path: str | URL,
        role: Role | None = None,
        *,
        token: str = "",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Answer:
        text = token or (self.tokens[role] if role else "")
        sent = {**({"Authorization": f"Bearer {text}"} if text else {}), **(headers or {})}
        async with self.http.request(
            method, path, headers=sent, allow_redirects=False, **more
        ) as response:
            raw = await response.text()
            for secret in (*SECRETS, *self.tokens.values()):
                assert secret not in raw
            is_json = response.content_type == "application/json"
            return Answer(
                response.status,
                json.loads(raw) if is_json else raw,
                response.headers,
                response.cookies,
            )

    async def log_in(self, role: Role, **more: Any) -> Answer:
        return await self.ask("POST", "/login", data={"token": self.tokens[role]}, **more)

    def sessions(self) -> list[str]:
        """Where the open sessions are kept."""
        keys: Any = self.store.keys("relay:session:*")
        return [key.decode() for key in keys]

    def csrf(self, key: str) -> str:
        """What forms of a session must bring along."""
        value: Any = self.store.get(key)
        return str(json.loads(value)["csrf"])

    def audit(self, event: str) -> list[dict[str, Any]]:
        audit.flush()
        lines = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        for text in self.tokens.values():
            assert text.encode() not in self.stream.getvalue()
        return [line for line in lines if line["event"] == event]


@asynccontextmanager
async def opened(
    settings: Settings, store: redis.Redis, audited: io.BytesIO
) -> AsyncIterator[Desk]:
    """A console on a socket of its own, and who sits before it."""
    connection = connect_async(settings.redis_address(), timeout=settings.store_timeout)
    plan = planned(load(settings.config, secrets_of=()))
    context = Context(
        settings=settings,
        redis=connection,
        redis_once=connection,
        archive=Archive(connection, settings.queue),
        history=History(settings.audit_file),
        powers=powers(settings),
        sessions=Sessions(connection),
        plan=lambda: plan,
    )
    runner = Runner(assemble(context), settings)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    texts: dict[Any, str] = {
        role: create(store, f"a-{role}", role).text for role in ("viewer", "operator")
    }
    url = f"http://{host}:{port}"
    async with aiohttp.ClientSession(url, cookie_jar=CookieJar(unsafe=True)) as http:
        yield Desk(url, texts, store, audited, http)
    await runner.cleanup()
    await connection.aclose()
