"""Whoever sits before the console in a test."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
import redis
from aiohttp.abc import AbstractCookieJar

from relay import audit
from relay.tokens import Role
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
    http: aiohttp.ClientSession = field(init=False)

    def session(self, jar: AbstractCookieJar) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.url, cookie_jar=jar)

    async def ask(
        self,
        method: str,
        path: str,
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
