"""Who is told what became of deploys: a real worker, and a real HTTP server in place of a chat."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from relay.events import gate
from tests.harness import Relay, Target, until
from tests.workers.crew import Crew, open_ledger, open_wakeups
from tests.workers.desk import YAML, Desk, answering
from workers import notices
from workers.runtime import project

HOOK = "/services/T000/chat-hook-secret"

NOTIFY = """\
notify:
  - {name: team chat, preset: slack, url: {env: TEST_CHAT_HOOK}RATE}
"""


@pytest.fixture
def keys() -> str:
    return ""


@pytest.fixture
def notify() -> str:
    return NOTIFY


@pytest.fixture
async def desk(
    crew: Crew,
    relay: Relay,
    target: Target,
    audited: Any,
    keys: str,
    notify: str,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Desk]:
    """The desk, whose notices go to the server of the target."""
    monkeypatch.setenv("TEST_CHAT_HOOK", target.url + HOOK)
    monkeypatch.setenv("RELAY_CONSOLE_URL", "https://relay.example")
    relay.write(YAML.replace("KEYS\n", keys) + notify.replace("RATE", ""))
    async with (
        open_ledger(crew.folder) as ledger,
        open_wakeups(crew.url, crew.queue.name) as wakeups,
    ):
        yield Desk(crew, ledger, wakeups, audited)


class Chat:
    """What a chat was told, beside the deploys of the same server."""

    def __init__(self, target: Target) -> None:
        self.deploys: list[Any] = []
        self.answers: list[Any] = []
        self.answer: Any = None
        self._target = target
        self._deployed = answering(202)
        target.answer = self._handle

    def deploying(self, *answers: Any) -> None:
        self.deploys += answers

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == HOOK:
            answer = self.answers.pop(0) if self.answers else self.answer or answering(200)
        else:
            answer = self.deploys.pop(0) if self.deploys else self._deployed
        done: web.StreamResponse = await answer(request)
        return done

    @property
    def bodies(self) -> list[dict[str, Any]]:
        calls = [body for _, _, path, _, body in self._target.calls if path == HOOK]
        return [json.loads(body) for body in calls]

    @property
    def texts(self) -> list[str]:
        return [body["text"] for body in self.bodies]


@pytest.fixture
def chat(target: Target) -> Chat:
    return Chat(target)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "PAUSES", (1, 1))


async def test_a_failure_is_told_once_and_then_the_recovery_once(desk: Desk, chat: Chat) -> None:
    chat.deploying(answering(404))
    desk.crew.start()

    failed = await desk.push("a")
    [sent] = await desk.told("notice.sent")
    assert chat.texts == [
        f"Deploy failed: `api`, `acme/api` `main` `{sent['sha'][:12]}`: HTTP 404 "
        f"<https://relay.example/deploys/{failed}|open>"
    ]
    assert (sent["about"], sent["notifier"], sent["deploy"]) == ("failure", "team chat", failed)
    assert (sent["status"], sent["more"], sent["level"]) == (200, 0, "info")

    well = await desk.push("b")
    [_, sent] = await desk.told("notice.sent", count=2)
    assert (sent["about"], sent["deploy"]) == ("recovery", well)
    assert chat.texts[1].startswith("Deploy succeeded again after a failure: `api`, ")

    await desk.push("c")
    await desk.told("deploy.succeeded", count=2)
    await idle(desk)
    assert len(chat.texts) == 2


async def test_a_success_of_another_branch_is_no_recovery(desk: Desk, chat: Chat) -> None:
    chat.deploying(answering(404))
    desk.crew.start()

    await desk.push("a")
    await desk.told("notice.sent", about="failure")
    await desk.push("b", branch="other")
    await desk.told("deploy.succeeded")
    await idle(desk)

    assert desk.lines("notice.sent", about="recovery") == []
    assert len(chat.texts) == 1


@pytest.mark.parametrize("keys", ["    timeout: 200ms\n    on_uncertain: hold\n"])
async def test_what_is_held_for_a_person_is_told(desk: Desk, chat: Chat) -> None:
    async def never(_: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        return web.Response()

    chat.deploying(never)
    desk.crew.start()

    await desk.push("a")
    [sent] = await desk.told("notice.sent")

    assert sent["about"] == "held"
    assert "Deploy is uncertain, a person has to decide: `api`" in chat.texts[0]
    assert "no answer in time" in chat.texts[0]


@pytest.mark.parametrize("keys", ["    approval: {expires: 1h}\n"])
async def test_what_waits_for_approval_is_told_once(
    desk: Desk, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "PERSON_LOOK", 0.2)
    desk.crew.start()
    deploy = await desk.push("a")
    [sent] = await desk.told("notice.sent")
    [waiting] = desk.lines("deploy.waiting")

    # It looks again, and waits for the same.
    row = await desk.reaches(deploy, "waiting", "approval")
    while (await desk.row(deploy))["next_at"] == row["next_at"]:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await idle(desk)

    assert sent["about"] == "approval"
    assert len(chat.texts) == 1
    assert f"Deploy waits for approval: `api`, `acme/api` `main` `{sent['sha'][:12]}`" in str(
        chat.texts
    )
    assert f"until {waiting['until']}" in chat.texts[0]


@pytest.mark.parametrize(
    "notify",
    [
        "notify:\n"
        "  - {name: a, preset: slack, url: {env: TEST_CHAT_HOOK}, on: recovery}\n"
        "  - {name: b, preset: slack, url: {env: TEST_CHAT_HOOK}, repos: 'acme/web'}\n"
        "  - name: d\n"
        "    preset: http\n"
        "    url: {env: TEST_CHAT_HOOK}\n"
        "    json: {about: '{{ notice.kind }} of {{ event.repo }}', link: '{{ notice.link }}'}\n"
    ],
)
async def test_only_who_wants_it_is_told_and_http_says_what_its_template_says(
    desk: Desk, chat: Chat
) -> None:
    chat.deploying(answering(404))
    desk.crew.start()

    deploy = await desk.push("a")
    [sent] = await desk.told("notice.sent")
    await idle(desk)

    assert sent["notifier"] == "d"
    assert chat.bodies == [
        {"about": "failure of acme/api", "link": f"https://relay.example/deploys/{deploy}"}
    ]
    assert len(desk.lines("notice.sent")) == 1


@pytest.mark.parametrize("notify", [NOTIFY.replace("RATE", ", rate: 2/3s")])
async def test_what_is_over_the_rate_is_summed_up_in_one(desk: Desk, chat: Chat) -> None:
    words = "abcdefg"
    chat.deploying(*[answering(404)] * len(words))
    desk.crew.start()
    desk.crew.start()

    for word in words:
        await desk.push(word, branch=word)
    await desk.told("notice.sent", count=3)
    await idle(desk)

    # Two at once, and one for the five that were over the rate.
    assert len(chat.texts) == 3
    assert chat.texts[2].endswith("\nand 4 more: failure 4")
    assert [line["more"] for line in desk.lines("notice.sent")] == [0, 0, 4]
    assert len(desk.lines("notice.held", level="warning")) == 5
    assert len(desk.lines("deploy.failed")) == len(words)


async def test_a_chat_that_is_down_is_tried_again_and_deploys_go_on(
    desk: Desk, chat: Chat, quick: None
) -> None:
    chat.deploying(answering(404))
    chat.answer = answering(503)
    desk.crew.start()

    failed = await desk.push("a")
    await desk.told("deploy.failed", deploy=failed)
    await desk.push("b", branch="b")
    await desk.told("deploy.succeeded")
    [told] = await desk.told("notice.failed")

    assert (told["reason"], told["status"], told["level"]) == ("HTTP 503", 503, "error")
    assert (told["about"], told["deploy"], told["more"]) == ("failure", failed, 0)
    assert len(chat.texts) == 3
    assert desk.lines("notice.sent") == []


async def test_a_chat_that_is_well_again_is_told(desk: Desk, chat: Chat, quick: None) -> None:
    chat.deploying(answering(404))
    chat.answers = [answering(500), answering(429)]
    desk.crew.start()

    await desk.push("a")
    await desk.told("notice.sent")

    assert len(chat.texts) == 3
    assert desk.lines("notice.failed") == []


async def test_a_chat_that_refuses_is_not_asked_again(desk: Desk, chat: Chat) -> None:
    chat.deploying(answering(404))
    chat.answer = answering(403)
    desk.crew.start()

    await desk.push("a")
    [told] = await desk.told("notice.failed")

    assert told["reason"] == "HTTP 403"
    assert len(chat.texts) == 1


async def test_a_chat_that_hangs_holds_up_no_deploy(
    desk: Desk, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    released = asyncio.Event()

    async def hangs(_: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    chat.deploying(answering(404))
    chat.answer = hangs
    desk.crew.start()

    await desk.push("a")
    await until(lambda: len(chat.texts) == 1)
    await desk.push("b", branch="b")
    await desk.told("deploy.succeeded")
    assert desk.lines("notice.sent", "notice.failed") == []
    released.set()
    await desk.told("notice.sent")


async def test_an_address_that_is_not_allowed_is_not_called(
    desk: Desk, relay: Relay, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_CHAT_HOOK", "http://169.254.169.254/chat")
    chat.deploying(answering(404))
    desk.crew.start()

    await desk.push("a")
    [told] = await desk.told("notice.failed")

    assert "169.254.0.0/16" in told["reason"]
    assert (told["status"], chat.texts) == (None, [])


async def test_a_notifier_that_relay_yaml_no_longer_has_is_said(
    desk: Desk, relay: Relay, chat: Chat
) -> None:
    chat.deploying(answering(404))
    chat.answer = answering(503)
    worker = desk.crew.start()
    await desk.push("a")
    await until(lambda: chat.texts)
    await idle(desk, but="waiting")
    worker.shut_down()
    await desk.crew.ended(worker)
    relay.write(YAML.replace("KEYS\n", ""))
    project.cache_clear()
    await desk.ledger.commit(_make_notices_due)
    desk.crew.start()

    [told] = await desk.told("notice.failed")

    assert (told["notice"], told["notifier"], told["deploy"]) == (
        *("notice-1", "team chat"),
        "deploy-1",
    )
    assert told["reason"] == "relay.yaml no longer has this notifier"


async def test_secrets_of_a_chat_are_in_no_line(desk: Desk, chat: Chat, audited: Any) -> None:
    chat.deploying(answering(404), answering(404))
    chat.answers = [answering(403)]
    desk.crew.start()

    await desk.push("a")
    await desk.told("notice.failed")
    await desk.push("b")
    await desk.told("notice.sent")

    with sqlite3.connect(desk.ledger.folder / "ledger.db") as reader:
        bodies = [row[0].encode() for row in reader.execute("SELECT body FROM notice")]
    assert len(bodies) == 2
    for text in (audited.getvalue(), *bodies):
        assert b"chat-hook-secret" not in text
        assert b"/services/" not in text


async def _make_notices_due(tx: Any) -> None:
    postponed = {"sums": 0, "is_told": 0, "reason": "", "attempt": 1}
    await tx.run("postpone_notice", {**postponed, "notice": 1, "next_at": tx.now})


async def idle(desk: Desk, but: str = "") -> None:
    """Return once no notice waits or is told; ``but`` is a status that one may have."""

    def rests() -> bool:
        with sqlite3.connect(desk.ledger.folder / "ledger.db") as reader:
            open_ = "SELECT count(*) FROM notice WHERE status IN ('waiting', 'calling')"
            row = reader.execute(f"{open_} AND status <> ?", (but,)).fetchone()
            return bool(row == (0,))

    await until(rests)
