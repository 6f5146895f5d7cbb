"""What becomes of webhooks: the answer, the row, the lines of the audit, and who is woken."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from relay import audit
from relay.ledger.queued_deliveries import WantedDeploy, route_delivery
from relay.ledger.transaction import Transaction
from tests.harness import github_headers, until
from tests.receive.desk import CONFIG, Desk, deliveries, route, rows, running, source
from tests.receive.test_handler import Client, Server
from tests.receive.webhooks import pull_request, push


class Door(NamedTuple):
    """A receiver that listens."""

    desk: Desk
    client: Client
    audited: io.BytesIO
    folder: Path

    async def send(
        self, body: bytes, guid: str, *, event: str = "push", source: str = "github"
    ) -> tuple[int, dict[str, Any]]:
        headers = github_headers(body, event=event, delivery=guid)
        async with self.client.post(f"/hooks/{source}", data=body, headers=headers) as response:
            return response.status, await response.json()

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        audit.flush()
        lines = [json.loads(text) for text in self.audited.getvalue().splitlines()]
        return [line for line in lines if event in ("", line["event"])]

    def events(self) -> list[str]:
        return [line["event"] for line in self.lines()]


ROUTES = (
    route(),
    route(name="previews", on="pull_request", branches=None, labels="preview", deploy="preview"),
)


@pytest.fixture
async def door(aiohttp_client: Any, audited: io.BytesIO, tmp_path: Path) -> AsyncIterator[Door]:
    sources = {
        "github": source(),
        "mirror": source(server="github"),
        "other": source(),
    }
    async with running(tmp_path, ROUTES, sources=sources) as desk:
        yield Door(desk, await aiohttp_client(Server(desk.receiver)), audited, tmp_path)


async def test_a_new_push_is_queued(door: Door) -> None:
    answer = await door.send(push("a", "b"), "1")

    assert answer == (202, {"status": "queued", "delivery": "delivery-1"})
    assert door.events() == ["delivery.received", "delivery.queued"]
    for line in door.lines():
        assert line["delivery"] == "delivery-1"
        assert (line["guid"], line["source"], line["repo"]) == ("1", "github", "acme/web")
        assert (line["sender"], line["author"]) == ("a", "A")
        assert (line["remote"], line["config"]) == ("127.0.0.1", CONFIG)
    assert door.lines("delivery.received")[0]["bytes"] == len(push("a", "b"))
    [row] = deliveries(door.folder)
    assert len(row["body"]) == 16
    assert row["next_at"] is not None
    assert door.desk.waker.woken == [(1, 1)]


async def test_the_same_request_again_is_a_duplicate_of_the_first(door: Door) -> None:
    await door.send(push("a", "b"), "1")
    answer = await door.send(push("a", "b"), "1")

    assert answer == (200, {"status": "duplicate", "delivery": "delivery-1"})
    [line] = door.lines("delivery.duplicate")
    assert (line["delivery"], line["first"]) == ("delivery-1", "delivery-1")
    [row] = deliveries(door.folder)
    assert row["redeliveries"] == 1
    assert door.desk.waker.woken == [(1, 1)]


async def test_a_second_hook_of_the_newest_state_is_queued(door: Door) -> None:
    await door.send(push("a", "b"), "1")
    answer = await door.send(push("a", "b", note="other hook"), "2")

    assert answer == (202, {"status": "queued", "delivery": "delivery-2"})
    assert [row["verdict"] for row in deliveries(door.folder)] == ["new", "same"]


async def test_a_second_hook_of_an_older_state_is_a_duplicate_of_the_first_of_it(
    door: Door,
) -> None:
    await door.send(push("a", "b"), "1")
    await door.send(push("b", "c", 60), "2")
    answer = await door.send(push("a", "b", note="other hook"), "3")

    assert answer == (200, {"status": "duplicate", "delivery": "delivery-1"})
    [line] = door.lines("delivery.duplicate")
    assert (line["delivery"], line["first"]) == ("delivery-3", "delivery-1")
    assert [row["status"] for row in deliveries(door.folder)] == ["queued", "queued", "duplicate"]


async def test_a_late_push_is_kept_and_leads_to_nothing(door: Door) -> None:
    await door.send(push("a", "b"), "1")
    await door.send(push("c", "d", 120), "3")
    code, answer = await door.send(push("b", "c", 60), "2")

    assert (code, answer["status"], answer["delivery"]) == (200, "late", "delivery-3")
    assert answer["reason"] == "its ref has moved on since"
    [line] = door.lines("delivery.late")
    assert (line["delivery"], line["reason"]) == ("delivery-3", answer["reason"])
    assert deliveries(door.folder)[-1]["status"] == "ignored"
    assert len(door.desk.waker.woken) == 2


async def test_what_no_route_wants_moves_the_ref_and_keeps_each_reason(door: Door) -> None:
    skipped = push("a", "b", head_commit={"id": "x", "message": "[skip deploy]"})
    code, answer = await door.send(skipped, "1")

    assert (code, answer["status"], answer["delivery"]) == (200, "ignored", "delivery-1")
    reasons = rows(door.folder, "SELECT route, reason FROM route_reason ORDER BY place")
    assert [row["route"] for row in reasons] == ["web", "previews"]
    assert answer["reason"] == "; ".join(f"{row['route']}: {row['reason']}" for row in reasons)
    assert door.events() == ["delivery.received", "delivery.ignored"]
    assert door.desk.waker.woken == []

    # What it skipped is older than the next push, and a copy of it is known.
    await door.send(push("b", "c", 60), "2")
    answer_of_copy = await door.send(push("a", "b", note="other hook"), "3")
    assert answer_of_copy == (200, {"status": "duplicate", "delivery": "delivery-1"})


async def test_what_is_uncertain_is_told(door: Door) -> None:
    await door.send(push("a", "b"), "1")
    await door.send(push("b", "c", 60), "2")

    first, second = door.lines("delivery.queued")
    assert first["uncertain"] == "uncertain order: it is the first one and already old"
    assert "uncertain" not in second


async def test_an_id_that_comes_with_another_body_is_told(door: Door) -> None:
    await door.send(push("a", "b"), "1")
    await door.send(push("b", "c", 60), "1")

    assert [line.get("other_body") for line in door.lines("delivery.queued")] == [None, True]


async def test_sources_of_one_server_share_a_history_and_others_do_not(door: Door) -> None:
    await door.send(push("a", "b"), "1")
    shared = await door.send(push("a", "b"), "2", source="mirror")
    await door.send(push("b", "c", 60), "3")
    older = await door.send(push("a", "b", note="x"), "4", source="mirror")
    apart = await door.send(push("a", "b"), "5", source="other")

    assert (shared[0], apart[0]) == (202, 202)
    assert older == (200, {"status": "duplicate", "delivery": "delivery-1"})
    verdicts = [row["verdict"] for row in deliveries(door.folder)]
    assert verdicts == ["new", "same", "new", "same", "new"]


async def test_events_that_never_deploy_leave_a_line_only(door: Door) -> None:
    code, answer = await door.send(b'{"zen": "x"}', "1", event="ping")

    reason = "ping: the webhook is set up"
    assert (code, answer) == (200, {"status": "ignored", "delivery": "", "reason": reason})
    [line] = door.lines()
    assert (line["event"], line["delivery"], line["reason"]) == ("delivery.ignored", "", reason)
    assert (line["guid"], line["remote"], line["config"]) == ("1", "127.0.0.1", CONFIG)
    assert deliveries(door.folder) == []


async def test_the_end_of_a_ref_ends_what_waits_for_it_before_the_answer(door: Door) -> None:
    await door.send(push("a", "b"), "1")

    async def queue(tx: Transaction) -> None:
        await route_delivery(tx, 1, [WantedDeploy(target="t", route="web")])

    await door.desk.ledger.commit(queue)
    code, _ = await door.send(push("b", "", 60), "2")

    assert code == 200
    [line] = door.lines("deploy.superseded")
    assert (line["deploy"], line["delivery"], line["by"]) == (
        "deploy-1",
        "delivery-1",
        "delivery-2",
    )
    assert line["reason"] == "its branch, tag or pull request has ended since"
    [deploy] = rows(door.folder, "SELECT status FROM deploy")
    assert deploy["status"] == "superseded"


@pytest.mark.parametrize(
    ("steps", "turns"),
    [
        # Labeled, unlabeled and labeled at one commit: called twice.
        ([("labeled", ("preview",)), ("unlabeled", ()), ("labeled", ("preview",))], 2),
        # Another label meanwhile: not.
        (
            [("labeled", ("preview",)), ("labeled", ("preview", "x")), ("unlabeled", ("preview",))],
            1,
        ),
    ],
)
async def test_a_turn_begins_when_the_conditions_hold_again(
    door: Door, steps: list[tuple[str, tuple[str, ...]]], turns: int
) -> None:
    await door.send(pull_request("opened"), "0", event="pull_request")
    for number, (action, labels) in enumerate(steps):
        body = pull_request(action, at=number + 1, labels=labels)
        await door.send(body, f"step {number}", event="pull_request")

    [turn] = rows(door.folder, "SELECT target, turn FROM ref_turn")
    assert (turn["target"], turn["turn"]) == ("preview", turns)
    last = deliveries(door.folder)[-1]["turns"]
    assert msgspec.json.decode(last) == {"preview": turns}


async def test_fifty_copies_at_once_are_queued_once(door: Door) -> None:
    body = push("a", "b")

    answers = await asyncio.gather(*(door.send(body, "1") for _ in range(50)))

    assert sorted(code for code, _ in answers) == [200] * 49 + [202]
    assert {answer["delivery"] for _, answer in answers} == {"delivery-1"}
    [row] = deliveries(door.folder)
    assert row["redeliveries"] == 49
    assert door.desk.waker.woken == [(1, 1)]


async def test_a_group_is_one_transaction_and_one_wake_up(door: Door) -> None:
    bodies = [push("a", "b", ref=f"refs/heads/{number}") for number in range(40)]
    bodies += [push("a", "b"), push("a", "x", ref="refs/heads/main")]

    async def all_of_them(_: Transaction) -> None:
        """Keep the writer busy, so that all others wait for the next transaction."""

    senders = [door.send(body, str(number)) for number, body in enumerate(bodies)]
    answers, _ = await asyncio.gather(
        asyncio.gather(*senders), door.desk.ledger.commit(all_of_them)
    )

    assert len(answers) == 42
    assert len(deliveries(door.folder)) == 42
    assert len(door.desk.waker.woken) < 10


async def test_a_sender_that_has_gone_does_not_undo_its_delivery(door: Door) -> None:
    body = push("a", "b")
    lines = [f"{name}: {value}" for name, value in github_headers(body).items()]
    head = ["POST /hooks/github HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", *lines]
    _, writer = await asyncio.open_connection("127.0.0.1", door.client.port)
    writer.write("\r\n".join([*head, "", ""]).encode() + body)
    writer.close()

    await until(lambda: len(deliveries(door.folder)) == 1)


async def test_what_cannot_be_stored_does_not_concern_others(door: Door) -> None:
    good = [push("a", "b", ref=f"refs/heads/good-{number}") for number in range(5)]
    # A text with half a character passes as JSON of some senders, and no database takes it.
    bad = push("a", "b").replace(b'"A"', b'"\\ud800"')

    answers = await asyncio.gather(
        *(door.send(body, str(number)) for number, body in enumerate([*good[:2], bad, *good[2:]]))
    )

    codes = [code for code, _ in answers]
    assert codes[2] in (400, 500)
    assert len(deliveries(door.folder)) == 5
