"""A console of a test, and the person or program that uses it."""

from __future__ import annotations

import io
import json
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import aiohttp
from aiohttp import CookieJar, web
from yarl import URL

from config.loading import load
from config.settings import Settings
from relay import audit
from relay.console.app import assemble
from relay.console.context import Context, planned
from relay.console.server import Runner
from relay.console.sessions import Sessions
from relay.ledger.ledger import Ledger, prepare
from relay.ledger.sqlite import FILE
from relay.tokens import Role, create
from relay.worker_list import Workers
from tests.console.ledger_rows import LedgerRows
from tests.harness import SECRETS

ROLES: tuple[Role, ...] = ("viewer", "operator")


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
    ledger: Ledger
    rows: LedgerRows
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

    def sessions(self) -> list[dict[str, Any]]:
        """The rows of the open sessions."""
        with sqlite3.connect(self.ledger.folder / FILE) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM session")]

    def csrf(self) -> str:
        """What forms of the one open session must bring along."""
        [session] = self.sessions()
        return str(session["form_key"])

    def audit(self, event: str) -> list[dict[str, Any]]:
        audit.flush()
        lines = [json.loads(line) for line in self.stream.getvalue().splitlines()]
        for text in self.tokens.values():
            assert text.encode() not in self.stream.getvalue()
        return [line for line in lines if line["event"] == event]


@asynccontextmanager
async def opened(settings: Settings, audited: io.BytesIO) -> AsyncIterator[Desk]:
    """A console on a socket of its own, and a desk before it."""
    prepare(settings.data_dir)
    ledger = Ledger(settings.data_dir, timeout=settings.store_timeout)
    workers = Workers(settings)
    plan = planned(load(settings.config, secrets_of=()))
    context = Context(
        settings=settings,
        ledger=ledger,
        sessions=Sessions(ledger),
        workers=workers,
        plan=lambda: plan,
    )
    runner = Runner(assemble(context), settings)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    texts = {role: await token(ledger, role) for role in ROLES}
    url = f"http://{host}:{port}"
    async with aiohttp.ClientSession(url, cookie_jar=CookieJar(unsafe=True)) as http:
        yield Desk(url, texts, ledger, LedgerRows(ledger), audited, http)
    await runner.cleanup()
    await workers.close()
    await ledger.close()


async def token(ledger: Ledger, role: Role, name: str = "") -> str:
    """The text of a new token."""
    made = await ledger.commit(lambda tx: create(tx, name or f"a-{role}", role))
    return made.text
