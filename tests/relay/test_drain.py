"""The command `drain`: what it waits for, what it leaves, and how it tells."""

from __future__ import annotations

from tests.relay.ledger.filled import AT
from tests.relay.yard import Yard
from tests.screen import on_terminal

LATER = 4_000_000_000_000_000
"""A time that is far off, in microseconds."""


def test_where_nothing_waits_it_is_drained(yard: Yard) -> None:
    yard.queue("a", "failed")

    told = yard.run("drain")

    assert told.stdout == "drained: nothing is queued, nothing is being called\n"
    assert told.stderr == ""


def test_what_goes_on_by_itself_is_waited_for(yard: Yard) -> None:
    yard.receive("a", status="queued")
    yard.queue("b", "waiting", "api", repo="acme/api")
    yard.queue("c", "calling", repo="acme/c")
    yard.queue("d", "waiting", repo="acme/d", waits="slot", next_at=LATER)
    yard.queue("e", "waiting", repo="acme/e", waits="hours", next_at=AT)
    notice = {"notifier": "chat", "kind": "failed", "deploy": 1, "created_at": AT, "body": "{}"}
    yard.insert("notice", status="waiting", next_at=AT, **notice)
    yard.insert("notice", status="calling", next_at=LATER, claim="x", **notice)
    yard.insert("notice", status="waiting", next_at=LATER, **notice)

    told = yard.run("drain", "--timeout", "0", code=1)

    assert told.stderr == (
        "4 queued, 1 for a slot, 2 being called\n"
        "not drained after 0 s: 4 queued, 1 for a slot, 2 being called\n"
    )
    assert told.stdout == ""


def test_a_call_alone_is_waited_for(yard: Yard) -> None:
    yard.queue("a", "calling")

    told = yard.run("drain", "--timeout", "0", code=1)

    assert "not drained after 0 s: 0 queued, 0 for a slot, 1 being called" in told.stderr


def test_what_waits_for_a_time_or_a_person_is_told_and_left(yard: Yard) -> None:
    for number, waits in enumerate(["approval", "hours", "hours", "paused", "retry"]):
        next_at = LATER + number * 1_000_000
        yard.queue(str(number), "waiting", repo=f"acme/{number}", waits=waits, next_at=next_at)

    told = yard.run("drain")
    all_of_it = yard.run("drain", "--all", "--timeout", "10ms", code=1)

    later = (
        "for a time or a person wait: approval 1, hours 2, paused 1, retry 1; the first is looked "
        "at again at 2096-10-02T07:06:40Z\n"
    )
    assert told.stdout == "drained: nothing is queued, nothing is being called\n" + later
    assert all_of_it.stdout == later
    assert all_of_it.stderr.endswith(
        "not drained after 0.01 s: 0 queued, 0 for a slot, 0 being called, 5 for their time\n"
    )


def test_a_timeout_that_is_none(yard: Yard) -> None:
    assert "not a duration" in yard.run("drain", "--timeout", "soon", code=2).output


def test_a_bar_shows_how_far_it_is_and_ctrl_c_ends_it(yard: Yard) -> None:
    for name in "ab":
        yard.receive(name, status="queued")

    def route(number: int) -> None:
        yard.sql.execute(
            "UPDATE delivery SET status = 'routed', next_at = NULL WHERE id = ?", (number,)
        )

    with on_terminal("drain", columns=120) as screen:
        screen.until(lambda screen: "2 queued, 0 for a slot, 0 being called" in screen.text)
        route(1)
        screen.until(lambda screen: "1 queued, 0 for a slot, 0 being called" in screen.text)
        assert " 50% " in screen.text
        screen.type("\x03")
        assert screen.end() == 130
    assert "stopped: 1 queued, 0 for a slot, 0 being called" in screen.text

    with on_terminal("drain", columns=120) as screen:
        screen.until(lambda screen: "1 queued" in screen.text)
        route(2)
        assert screen.end() == 0
    assert "drained: nothing is queued, nothing is being called" in screen.text
