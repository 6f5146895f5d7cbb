"""Commands on a real terminal: colours, widths, the live view and its keys."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import redis

from relay.commands import bulk_actions
from relay.ledger.sqlite import FILE
from tests.relay.yard import NO_ANSWER, REFUSED, Yard
from tests.screen import Screen, on_terminal

RED, GREEN = "\x1b[1;31m", "\x1b[32m"


def shown(
    yard: Yard, *args: str, columns: int = 80, environ: Mapping[str, str] | None = None
) -> Screen:
    with on_terminal(*args, columns=columns, environ=environ) as screen:
        assert screen.end() == 0, screen.text
    return screen


def test_a_list_has_colours_and_whole_ids_whatever_the_width(yard: Yard) -> None:
    failed = yard.queue("a", "failed", reason=REFUSED)
    done = yard.queue("b", "succeeded", repo="acme/\x1b[5mother")

    wide = shown(yard, "deploys", "list", columns=160)
    narrow = shown(yard, "deploys", "list", columns=60)

    header, first, second, *rest = wide.text.splitlines()
    assert header.split() == ["created", "status", "what", "commit", "id"]
    assert (done in first, failed in second) == (True, True)
    assert second.rstrip().endswith("HTTP 404")
    assert rest == []
    for screen in (wide, narrow):
        assert f"{RED}failed" in screen.output
        assert f"{GREEN}succeeded" in screen.output
        assert "\x1b[5m" not in screen.output
        assert "acme/\ufffd[5mother" in screen.text
    lines = [line.rstrip() for line in narrow.text.splitlines()]
    assert lines[0] == f"succeeded  {done}"
    assert f"failed     {failed}" in lines
    assert all(len(line) <= 60 for line in lines)
    assert failed in shown(yard, "deploys", "list", columns=30).text


@pytest.mark.parametrize(
    ("environ", "plain"), [({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, True)]
)
def test_who_wants_no_colours_gets_none(yard: Yard, environ: dict[str, str], plain: bool) -> None:
    failed = yard.queue("a", "failed", reason=REFUSED)

    screen = shown(yard, "deploys", "list", columns=160, environ=environ)

    assert "\x1b[3" not in screen.output
    assert ("\x1b" in screen.output) != plain
    assert failed in screen.text
    assert "failed" in screen.text
    if plain:
        assert screen.text.splitlines() == yard.run("deploys", "list").stdout.splitlines()
        assert "needs a person: 1 failed" in shown(yard, "top", environ=environ).text


def test_targets_say_how_they_stand(yard: Yard) -> None:
    yard.target("api", open_until=round((time.time() + 60) * 1e6), opened=1)
    yard.queue("a", "calling", "api")

    screen = shown(yard, "targets", "list")

    assert f"{GREEN}ready" in screen.output
    assert f"{RED}breaker open until 20" in screen.output
    listed = yard.run("targets", "list", "--json").stdout.splitlines()
    told = {row["name"]: row for row in map(json.loads, listed)}
    assert (told["api"]["breaker"], told["api"]["calling"]) == ("open", 1)
    assert (told["production"]["state"], told["production"]["waiting"]) == ("ready", 0)


def test_top_fits_the_terminal_follows_its_size_and_ends_with_q(yard: Yard) -> None:
    uncertain = yard.queue("a", "uncertain", reason=NO_ANSWER)
    yard.receive("b", status="queued")

    with on_terminal("top", "--interval", "0.2") as screen:
        screen.until(lambda screen: "needs a person: 1 uncertain" in "\n".join(screen.lines))
        lines = screen.lines
        assert len(lines) <= 24
        assert all(len(line) <= 80 for line in lines)
        assert lines[0].endswith("every 0.2 s, q quits")
        assert lines[4].startswith("1 queued, 0 for a slot, the oldest for ")
        assert lines[5] == "Redis does not answer, so workers are not listed"
        assert [line for line in lines if uncertain in line]

        yard.queue("c", "waiting")
        screen.until(lambda screen: screen.lines[4].startswith("2 queued"))
        screen.resize(16, 50)
        # The size may change while a frame is drawn, so it is the one after it that fits.
        screen.until(
            lambda screen: len(screen.lines) <= 16 and all(len(line) <= 50 for line in screen.lines)
        )
        assert [line for line in screen.lines if uncertain in line]
        screen.type("xq")
        assert screen.end() == 0
    assert "\x1b[?1049l" in screen.output
    assert "\x1b[?25h" in screen.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_top_ends_by_a_signal_and_leaves_the_terminal_as_it_was(
    yard: Yard, number: signal.Signals
) -> None:
    with on_terminal("top", "--interval", "3600") as screen:
        screen.until(lambda screen: "q quits" in screen.text)
        screen.process.send_signal(number)
        assert screen.end() == 0
    assert "\x1b[?1049l" in screen.output


def test_top_is_resized_between_two_reads(yard: Yard) -> None:
    with on_terminal("top", "--interval", "3600", columns=100) as screen:
        screen.until(lambda screen: "q quits" in screen.text)
        before = screen.output.count("q quits")
        screen.resize(24, 70)
        screen.until(lambda screen: screen.output.count("q quits") > before)
        screen.type("q")
        assert screen.end() == 0


def test_top_bridges_a_ledger_that_cannot_be_read(yard: Yard) -> None:
    with on_terminal("top", "--interval", "0.1") as screen:
        screen.until(lambda screen: "q quits" in screen.text)
        yard.sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        file = yard.folder / FILE
        whole = file.read_bytes()
        try:
            # In place, as it is the file that is open.
            with file.open("r+b") as stream:
                stream.write(bytes(len(whole)))
            screen.until(lambda screen: "the ledger's file" in screen.text)
            assert "nothing needs a person" in "\n".join(screen.lines)
        finally:
            with file.open("r+b") as stream:
                stream.write(whole)
        seen = screen.output.count("q quits")
        screen.until(lambda screen: screen.output.count("q quits") > seen)
        screen.type("q")
        assert screen.end() == 0


def timeless(frame: str) -> list[str]:
    """A frame without its clock, its pace and the ages in it."""
    return [re.sub(r"\b[0-9]+s\b", "0s", line) for line in frame.splitlines()[3:]]


def test_one_frame_in_a_pipe_is_plain_and_whole(yard: Yard) -> None:
    uncertain = yard.queue("a", "uncertain", reason=NO_ANSWER)
    yard.receive("b", status="queued")

    text = yard.run("top", "--once").stdout

    # Between the two a second passes, or a minute.
    assert timeless(yard.run("top").stdout) == timeless(text)
    lines = text.splitlines()
    assert [re.split(r" +[0-9.]+ ", line)[0] for line in lines[1:3]] == ["deliveries", "deploys"]
    assert "needs a person: 1 uncertain" in lines
    [trouble] = [line for line in lines if line.strip().endswith("no answer in time")]
    assert trouble.split()[1:3] == ["uncertain", uncertain]
    seen = json.loads(yard.run("top", "--json").stdout)
    assert (seen["queued"], seen["uncertain"], seen["newest"][0]["id"]) == (1, 1, uncertain)
    assert [target["name"] for target in seen["targets"]] == ["production", "preview", "api"]


def test_workers_are_those_that_rq_lists(
    yard: Yard, store: redis.Redis, server_socket: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_REDIS_URL", f"unix://{server_socket}")
    assert "no worker is alive" in yard.run("top", "--once").stdout
    store.sadd("rq:workers:deploy-relay", "rq:worker:lives", "rq:worker:was-killed")
    store.hset("rq:worker:lives", "last_heartbeat", "2026-01-01T00:00:00.000000Z")
    store.sadd("rq:worker:lives:executions", "x:1", "y:2")

    assert "1 worker alive, 2 jobs in flight" in yard.run("top", "--once").stdout


def unwrapped(screen: Screen) -> str:
    """The text without the ends of lines that are longer than the terminal is wide."""
    return screen.text.replace("\r", "").replace("\n", "")


def test_cancel_of_many_shows_a_bar_and_is_audited_above_it(yard: Yard) -> None:
    number = bulk_actions.MANY
    for place in range(number):
        yard.receive(f"n{place}", status="queued")

    screen = shown(yard, "deliveries", "cancel", "--status", "queued", "--yes")

    assert f"{number}/{number}" in screen.text
    assert screen.text.count("is cancelled") == number
    assert unwrapped(screen).count('"delivery.cancelled"') == number
    assert yard.listed("deliveries", "list", "--status", "queued") == []


def test_ctrl_c_ends_after_what_is_told_and_asking_again_does_the_rest(yard: Yard) -> None:
    number = 2_000
    yard.sql.execute("BEGIN")
    for place in range(number):
        yard.receive(f"n{place}", status="queued")
    yard.sql.execute("COMMIT")

    cancel = ("deliveries", "cancel", "--status", "queued", "--limit", "9999", "--yes")
    with on_terminal(*cancel) as screen:
        screen.until(lambda screen: "is cancelled" in screen.text)
        screen.type("\x03")
        assert screen.end() == 130

    done = screen.text.count("is cancelled")
    assert 0 < done < number
    assert f"stopped after {done} of {number}; it is safe to run the command again" in screen.text
    assert unwrapped(screen).count('"delivery.cancelled"') == done
    left = yard.listed("deliveries", "list", "--status", "queued", "--limit", "9999")
    assert len(left) == number - done
    rest = yard.run(*cancel)
    assert rest.stdout.count("is cancelled") == number - done
