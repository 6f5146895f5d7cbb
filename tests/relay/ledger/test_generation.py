"""A ledger that went back in time is noticed, calls nothing, and goes on once it is accepted."""

from __future__ import annotations

import functools
import io
import json
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from config.settings import Settings
from relay import audit
from relay.audit_facts import last_ids, read_facts, revoked_tokens
from relay.errors import LedgerNotBehind
from relay.ledger.acceptance import AuditFacts, accept_ledger, in_words, lacking, read_kept
from relay.ledger.generation import (
    MARK_FILE,
    LastIds,
    Mark,
    Outside,
    decode_mark,
    encode_mark,
    find_ahead,
    read_mark,
    read_mark_file,
    redis_mark_key,
    write_mark_file,
)
from relay.ledger.ledger import Ledger, prepare
from relay.ledger.sqlite import FILE
from relay.ledger.sqlite_file import back_up
from relay.ledger.transaction import Transaction
from relay.ledger_marks import check_marks, check_redis_mark, mark_for_redis
from tests.relay.ledger.rows import add_delivery, add_deploy, ask, route, sql, statuses


def lines(audited: io.BytesIO, event: str) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in audited.getvalue().splitlines()]
    return [entry for entry in entries if entry["event"] == event]


class Site:
    """A data folder with an audit file beside it, and a backup of its ledger."""

    def __init__(self, folder: Path, *, has_audit: bool = True) -> None:
        self.folder = folder / "data"
        self.audit = folder / "audit.jsonl"
        self.settings = Settings(data_dir=self.folder, audit_file=self.audit if has_audit else None)
        self.backup = folder / "backup.db"
        if has_audit:
            self.audit.write_text("")
        prepare(self.folder)
        self.ledger = Ledger(self.folder)

    def say(self, event: str, **fields: Any) -> None:
        """Write a line into the audit file."""
        entry = {"event": event, "at": "2026-01-02T03:04:05.000000Z", **fields}
        with self.audit.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, separators=(",", ":")) + "\n")

    async def restore(self, *, keep_mark: bool = True) -> bool:
        """Put the backup back, as a person would, and start anew. Return whether it is behind."""
        await self.ledger.close()
        for file in self.folder.glob(f"{FILE}*"):
            file.unlink()
        if not keep_mark:
            (self.folder / MARK_FILE).unlink(missing_ok=True)
        shutil.copy(self.backup, self.folder / FILE)
        return await self.start()

    async def start(self, redis_mark: bytes | None = None) -> bool:
        """Open the ledger again, as a process does at its start. Return whether it is behind."""
        await self.ledger.close()
        prepare(self.folder)
        self.ledger = Ledger(self.folder)
        return await check_marks(self.ledger, self.settings, redis_mark)

    async def accept(self) -> Any:
        """What ``deploy-relay ledger accept`` does, without its words."""
        behind = self.ledger.behind
        assert behind is not None
        facts: AuditFacts | None = None
        if self.settings.audit_file is not None:
            facts = read_facts(
                self.audit, behind, await self.ledger.read(lambda r: read_kept(r, behind))
            )
        accepted = await self.ledger.commit(lambda tx: accept_ledger(tx, "ann", facts))
        assert not await self.ledger.refresh()
        return accepted


@pytest.fixture
async def site(tmp_path: Path, audited: io.BytesIO) -> AsyncIterator[Site]:
    made = Site(tmp_path)
    yield made
    await made.ledger.close()


async def generation(ledger: Ledger) -> int:
    return (await ledger.glance(read_mark)).generation


async def test_the_generation_grows_with_what_must_not_be_forgotten(site: Site) -> None:
    ledger = site.ledger
    before = await generation(ledger)
    deploy = await add_deploy(ledger, "a")
    routed = await generation(ledger)
    assert routed == before + 2, "one for the delivery, one for the deploy"
    assert await ask(ledger, deploy) is not None
    assert await generation(ledger) == routed + 1

    async def duty(tx: Transaction) -> None:
        await tx.run(
            "take_duty",
            {"name": "sweep", "owner": "a", "until": 1, "now": 0, "furthest": 9, "note": ""},
        )

    await ledger.commit(duty)
    assert await generation(ledger) == routed + 1


async def test_numbers_are_not_given_out_twice(site: Site) -> None:
    first = await add_delivery(site.ledger, "a")
    sql(site.folder, "PRAGMA foreign_keys = OFF")
    sql(site.folder, "DELETE FROM delivery")
    assert await add_delivery(site.ledger, "b") == first + 1


async def test_a_new_installation_is_not_behind(site: Site) -> None:
    assert not await check_marks(site.ledger, site.settings)
    await add_deploy(site.ledger, "a")
    assert not await site.start(await mark_for_redis(site.ledger))


async def test_the_audit_of_the_release_before_is_not_ahead(site: Site) -> None:
    site.say("delivery.queued", delivery="github--1234", deploy="github--1234--production")
    assert not await site.start()


async def test_what_a_sender_is_called_is_no_id(site: Site) -> None:
    site.say("delivery.ignored", delivery="", sender="delivery-999", author='"delivery":"deploy-9')
    assert not await site.start()
    assert last_ids(site.audit) == LastIds()


@pytest.mark.parametrize("by", ["file", "redis", "audit"])
async def test_a_restored_ledger_is_behind_whichever_is_ahead(
    site: Site, by: str, audited: io.BytesIO
) -> None:
    await add_deploy(site.ledger, "a")
    back_up(site.folder, site.backup)
    deploy = await add_deploy(site.ledger, "b")
    redis_mark = await mark_for_redis(site.ledger)
    assert redis_mark is not None
    if by == "audit":
        site.say("deploy.queued", delivery="delivery-2", deploy=f"deploy-{deploy}")
    await site.restore(keep_mark=by == "file")
    if by == "redis":
        assert not site.ledger.is_behind
        assert await check_redis_mark(site.ledger, site.settings, redis_mark)
    assert site.ledger.is_behind
    [line] = lines(audited, "ledger.behind")
    assert (line["ahead"], line["level"]) == ([by], "error")
    assert line["reason"].endswith("run deploy-relay ledger accept")
    assert (line["last_delivery"], line["next_delivery"]) == ("delivery-1", "delivery-3")
    # Another process finds it noted, and says nothing more.
    assert await site.start()
    assert len(lines(audited, "ledger.behind")) == 1


async def test_a_new_ledger_beside_an_old_mark_is_behind(site: Site, audited: io.BytesIO) -> None:
    await add_deploy(site.ledger, "a")
    await site.ledger.close()
    for file in site.folder.glob(f"{FILE}*"):
        file.unlink()
    assert await site.start()
    assert await add_delivery(site.ledger, "b") == 2
    await site.accept()
    assert not await site.start()
    assert await add_delivery(site.ledger, "c") == 3


async def test_while_it_is_behind_webhooks_are_accepted_and_nothing_is_called(site: Site) -> None:
    deploy = await add_deploy(site.ledger, "a")
    back_up(site.folder, site.backup)
    await add_deploy(site.ledger, "b", "topic")
    assert await site.restore()
    # The numbers that were given out since are skipped from now on.
    assert await add_delivery(site.ledger, "c", "topic") == 3
    assert await ask(site.ledger, deploy) is None
    assert statuses(site.folder) == {deploy: "waiting"}
    assert await mark_for_redis(site.ledger) is None


async def test_marks_are_not_set_back_while_it_is_behind(site: Site) -> None:
    await add_deploy(site.ledger, "a")
    back_up(site.folder, site.backup)
    await add_deploy(site.ledger, "b")
    await site.ledger.close()
    mark = read_mark_file(site.folder)
    assert await site.restore()
    await add_delivery(site.ledger, "c", "topic")
    assert await site.start()
    assert read_mark_file(site.folder) == mark


async def test_an_accepted_ledger_is_a_new_one_and_old_marks_count_no_more(site: Site) -> None:
    await add_deploy(site.ledger, "a")
    back_up(site.folder, site.backup)
    await add_deploy(site.ledger, "b")
    old = await mark_for_redis(site.ledger)
    assert await site.restore()
    await site.accept()
    assert not await site.start(old)
    new = await mark_for_redis(site.ledger)
    await add_delivery(site.ledger, "c", "topic")
    # It can be restored again, and that is noticed again.
    assert await site.restore(keep_mark=False) is False
    assert await check_redis_mark(site.ledger, site.settings, new)


async def test_what_waits_goes_on_only_if_the_audit_knows_that_nothing_happened(
    site: Site, audited: io.BytesIO
) -> None:
    numbers = [await add_deploy(site.ledger, word, word) for word in "abcde"]
    done, retried, quiet, unknown, called = numbers
    assert await ask(site.ledger, called) is not None
    back_up(site.folder, site.backup)
    for number in (done, retried, quiet, called):
        site.say(
            "deploy.queued", delivery=f"delivery-{number}", deploy=f"deploy-{number}", attempt=0
        )
    site.say("deploy.attempted", deploy=f"deploy-{done}", attempt=1)
    site.say("deploy.succeeded", deploy=f"deploy-{done}", attempt=1)
    site.say("deploy.attempted", deploy=f"deploy-{retried}", attempt=1)
    site.say("deploy.succeeded", deploy=f"deploy-{called}", attempt=1)
    site.say("deploy.queued", delivery="delivery-6", deploy="deploy-6", target="production")
    assert await site.restore()
    sql(site.folder, "UPDATE deploy SET next_at = 1, claim_boot = '' WHERE status = 'calling'")
    accepted = await site.accept()
    assert statuses(site.folder) == {
        done: "uncertain",
        retried: "uncertain",
        quiet: "waiting",
        unknown: "uncertain",
        called: "uncertain",
    }
    assert [doubted.line.id for doubted in accepted.doubted] == [done, retried, unknown, called]
    assert "the audit says deploy.succeeded since" in accepted.doubted[0].reason
    [attempt] = sql(site.folder, "SELECT outcome FROM attempt")
    assert attempt == ("uncertain",)
    assert await ask(site.ledger, quiet) is not None
    for number in (done, retried, unknown, called):
        assert await ask(site.ledger, number) is None


async def test_without_an_audit_file_nothing_that_waits_goes_on(
    tmp_path: Path, audited: io.BytesIO
) -> None:
    site = Site(tmp_path, has_audit=False)
    deploy = await add_deploy(site.ledger, "a")
    queued = await add_delivery(site.ledger, "b", "topic")
    back_up(site.folder, site.backup)
    await add_deploy(site.ledger, "c")
    assert await site.restore()
    accepted = await site.accept()
    assert statuses(site.folder) == {deploy: "uncertain"}
    assert accepted.dropped == (queued,)
    [row] = sql(site.folder, "SELECT status, next_at FROM delivery WHERE id = ?", queued)
    assert row == ("ignored", None)
    await site.ledger.close()


async def test_what_arrived_while_it_was_behind_goes_on(site: Site) -> None:
    await add_deploy(site.ledger, "a")
    back_up(site.folder, site.backup)
    await add_deploy(site.ledger, "b")
    assert await site.restore()
    delivery = await add_delivery(site.ledger, "c", "topic")
    assert await route(site.ledger, delivery) == 0
    await site.accept()
    deploy = await route(site.ledger, delivery)
    assert await ask(site.ledger, deploy) is not None


async def test_what_the_ledger_lacks_is_listed(site: Site) -> None:
    await add_deploy(site.ledger, "a")
    back_up(site.folder, site.backup)
    await add_deploy(site.ledger, "b")
    site.say("deploy.queued", delivery="delivery-1", deploy="deploy-1", target="production")
    about = {"delivery": "delivery-2", "repo": "acme/web", "sha": "b" * 40}
    site.say("delivery.queued", **about)
    site.say("deploy.queued", **about, deploy="deploy-2", target="production", attempt=0)
    site.say("deploy.succeeded", **about, deploy="deploy-2", target="production", attempt=1)
    site.say("target.paused", target="production", by="ann")
    assert await site.restore()
    # What arrived since is not missing.
    assert await add_delivery(site.ledger, "c", "topic") == 3
    site.say("delivery.queued", delivery="delivery-3", repo="acme/web")
    behind = site.ledger.behind
    assert behind is not None
    facts = read_facts(site.audit, behind, await site.ledger.read(lambda r: read_kept(r, behind)))
    [delivery], [deploy] = lacking(behind, facts)
    assert (delivery.id, delivery.repo, delivery.event) == (2, "acme/web", "delivery.queued")
    assert (deploy.id, deploy.event, deploy.attempt) == (2, "deploy.succeeded", 1)
    [action] = facts.actions
    assert (action.by, action.event, action.subject) == ("ann", "target.paused", "production")


async def test_a_token_that_was_revoked_since_is_taken_away(site: Site) -> None:
    for id_ in ("0123456789ab", "ba9876543210"):
        sql(
            site.folder,
            "INSERT INTO token (id, name, role, sha256, created_at) VALUES (?, ?, 'viewer', '', 0)",
            *(id_, f"name of {id_}"),
        )
    back_up(site.folder, site.backup)
    await add_delivery(site.ledger, "a")
    sql(site.folder, "DELETE FROM token WHERE id = '0123456789ab'")
    site.say("token.revoked", token="0123456789ab", name="b", role="viewer")
    assert revoked_tokens(site.audit) == {"0123456789ab"}
    assert await site.restore()
    assert sql(site.folder, "SELECT id FROM token") == [("ba9876543210",)]


async def test_accepting_is_noted_and_is_done_once(site: Site) -> None:
    await add_delivery(site.ledger, "a")
    back_up(site.folder, site.backup)
    await add_delivery(site.ledger, "b", "topic")
    assert await site.restore()
    await site.accept()
    [row] = sql(site.folder, "SELECT by, what, subject FROM action")
    assert row == ("ann", "accept", "ledger")
    with pytest.raises(LedgerNotBehind):
        await site.ledger.commit(lambda tx: accept_ledger(tx, "ann", None))


async def test_the_mark_file_follows_at_the_latest_when_the_ledger_is_closed(site: Site) -> None:
    await add_delivery(site.ledger, "a")
    await add_delivery(site.ledger, "b", "topic")
    mark = await site.ledger.glance(read_mark)
    await site.ledger.close()
    assert read_mark_file(site.folder) == mark
    assert mark.ids == LastIds(delivery=2)


def test_a_mark_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    mark = Mark("a", 7, LastIds(delivery=3))
    write_mark_file(tmp_path, mark)
    assert read_mark_file(tmp_path) == mark == decode_mark(encode_mark(mark))
    for text in (b"", b"\0" * 512, b'{"instance":', b"[]"):
        (tmp_path / MARK_FILE).write_bytes(text)
        assert read_mark_file(tmp_path) is None
    assert read_mark_file(tmp_path / "nowhere") is None
    assert redis_mark_key("a") != redis_mark_key("b")


async def test_marks_of_one_ledger_are_compared_by_their_generation(site: Site) -> None:
    await add_delivery(site.ledger, "a")
    own = await site.ledger.glance(read_mark)
    cases: Mapping[str, tuple[Mark, tuple[str, ...]]] = {
        "equal": (own, ()),
        "older": (msgspec.structs.replace(own, generation=own.generation - 1), ()),
        "newer": (msgspec.structs.replace(own, generation=own.generation + 1), ("redis",)),
        "another's": (msgspec.structs.replace(own, instance="another", generation=0), ("redis",)),
    }
    for name, (mark, expected) in cases.items():
        marks: dict[Outside, Mark | None] = {"redis": mark}
        find = functools.partial(find_ahead, marks=marks, audit_ids=LastIds())
        assert await site.ledger.glance(find) == expected, name


def test_the_last_ids_are_found_behind_long_lines_without_any(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    old = tmp_path / "audit-000000000001.jsonl"
    old.write_text('{"delivery":"delivery-41","deploy":"deploy-7"}\n')
    file.write_text('{"event":"delivery.rejected"}\n' * 60_000 + '{"delivery":"delivery-42"}\n')
    assert last_ids(file) == LastIds(delivery=42, deploy=7)


async def test_the_sentence_names_what_is_ahead(site: Site) -> None:
    await add_delivery(site.ledger, "a")
    back_up(site.folder, site.backup)
    await add_delivery(site.ledger, "b", "topic")
    site.say("delivery.queued", delivery="delivery-2")
    assert await site.restore()
    assert site.ledger.behind is not None
    assert in_words(site.ledger.behind) == (
        "the ledger is older than the mark beside it and the audit file (delivery-2): no call is "
        "made until you run deploy-relay ledger accept"
    )


async def test_the_audit_is_left_alone(site: Site) -> None:
    audit.flush()
    await add_delivery(site.ledger, "a")
    before = site.audit.read_bytes()
    assert not await site.start()
    assert site.audit.read_bytes() == before
