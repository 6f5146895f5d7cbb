"""Pages, API and commands show what is stripped as far as they can, and say that it is."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner, Result

from relay.cli import main
from relay.reading import NOT_KEPT
from relay.replays import REASONS
from relay.store import connect_async
from tests.console.desk import Desk
from tests.harness import Relay, sha_of, until
from workers.history import History

SHA = sha_of("a")


@pytest.fixture
async def ids(relay: Relay, desk: Desk, server_socket: Path) -> tuple[str, str]:
    """A delivery and its deploy, both stripped."""
    await asyncio.gather(relay.serve(), relay.work())
    status, answer = await relay.push(delivery="a", after=SHA)
    assert status == 202
    [line] = await relay.processes[1].wait_for("deploy.succeeded")
    key = f"rq:job:{line['deploy']}"
    await until(lambda: desk.store.hget(key, "status") == b"finished")
    connection = connect_async(f"unix://{server_socket}", timeout=5)
    assert await History(connection, "deploy-relay", most=0).look() == 2
    await connection.aclose()
    return answer["delivery"], line["deploy"]


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html))


async def test_pages(desk: Desk, ids: tuple[str, str]) -> None:
    delivery, deploy = ids
    await desk.log_in("operator")

    async def get(path: str) -> str:
        answer = await desk.ask("GET", path)
        assert answer.status == 200, answer.body
        return str(answer.body)

    for path in ("/deliveries", "/deploys", "/deploys?route=production&branch=main"):
        assert f"acme/web main {SHA[:8]}" in text_of(await get(path))
    assert "Overview" in await get("/")
    assert delivery in await get("/routes")
    html = await get(f"/deliveries/{delivery}")
    assert NOT_KEPT in text_of(html)
    assert "It led to 1 deploy" in html
    assert f"/deploys/{deploy}" in html
    assert "The event as stored" not in html
    html = await get(f"/deploys/{deploy}")
    assert NOT_KEPT in text_of(html)
    assert f"/deliveries/{delivery}" in html
    assert "1 attempt was made; the request and the answer were not kept." in html
    assert "The event as stored" not in html
    form = {"csrf": desk.csrf(desk.sessions()[0])}
    answer = await desk.ask("POST", "/routes", data={**form, "delivery": delivery})
    assert (answer.status, "is not kept any more" in answer.body) == (400, True)
    for kind, id_ in (("deliveries", delivery), ("deploys", deploy)):
        answer = await desk.ask("POST", f"/{kind}/{id_}/replay", data=form)
        assert answer.status == 409
        assert REASONS["stripped"][1:] in answer.body


async def test_api(desk: Desk, ids: tuple[str, str]) -> None:
    delivery, deploy = ids

    for kind, id_ in (("deliveries", delivery), ("deploys", deploy)):
        answer = await desk.ask("GET", f"/api/v1/{kind}/{id_}", "viewer")
        assert answer.status == 200
        told = answer.body
        assert (told["event"], told["runs"], told["attempts"]) == ({}, [], [])
        record = told["record"]
        assert (record["status"], record["stripped"]) == ("succeeded", True)
        assert (record["repo"], record["ref"]) == ("acme/web", "refs/heads/main")
        assert (record["sha"], record["source"]) == (SHA, "github")
        answer = await desk.ask("GET", f"/api/v1/{kind}?sha={SHA}", "viewer")
        assert [item["id"] for item in answer.body["items"]] == [id_]
        assert answer.body["complete"] is True
        # What is kept does not say who wrote the commit, and neither does the answer.
        answer = await desk.ask("GET", f"/api/v1/{kind}?author=a", "viewer")
        assert (answer.body["items"], answer.body["complete"]) == ([], False)
        body = {"ids": [id_], "force": True}
        answer = await desk.ask("POST", f"/api/v1/{kind}/replay", "operator", json=body)
        [result] = answer.body["results"]
        assert (result["done"], result["refusal"]) == (False, "stripped")
        assert result["message"] == REASONS["stripped"]
    answer = await desk.ask("GET", f"/api/v1/deploys/{deploy}", "viewer")
    assert answer.body["record"]["delivery"] == delivery
    assert answer.body["record"]["route"] == "production"
    assert answer.body["record"]["attempts"] == 1


async def test_commands(
    ids: tuple[str, str], relay: Relay, store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivery, deploy = ids
    for name, value in relay.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RELAY_CONFIG", str(relay.folder / "relay.yaml"))

    async def run(*args: str, code: int = 0) -> Result:
        result = await asyncio.to_thread(CliRunner().invoke, main, args)
        assert result.exit_code == code, result.output
        return result

    for kind, id_ in (("deliveries", delivery), ("deploys", deploy)):
        listed = json.loads((await run(kind, "list", "--json")).stdout)
        assert (listed["id"], listed["status"], listed["stripped"]) == (id_, "succeeded", True)
        assert f"acme/web@{SHA[:12]}" in (await run(kind, "list")).stdout
        text = (await run(kind, "show", id_)).stdout
        assert NOT_KEPT in text
        assert "event" not in text.split(NOT_KEPT)[0].split()
        shown = json.loads((await run(kind, "show", id_, "--json")).stdout)
        assert (shown["stripped"], shown["event"], shown["runs"]) == (True, {}, [])
        result = await run(kind, "replay", id_, "--force", "--yes", code=1)
        assert REASONS["stripped"] in result.output
    assert len(store.keys("rq:job:*")) == 2
