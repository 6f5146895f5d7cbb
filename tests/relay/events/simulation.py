"""Random histories of a ref through a channel that loses, delays, repeats and reorders webhooks.

``python -m tests.relay.events.simulation --histories 10000`` prints for each kind of ref in how
many histories the last live state is wrong: without a rule (the last webhook that is not a repeat
is live), by the rule, and by the rule that asks the git server where it is uncertain. The channel
is harsh: compare the columns with each other.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from relay.events.ref_change import RefChange
from relay.events.ref_history import Arrival, State, apply, asks, judge, judge_again, kept

START = 1_700_000_000.0
HOUR = 3_600.0
ASKED_AFTER = 2.0
"""Seconds after which the worker has the git server's answer."""


@dataclass(frozen=True)
class Sender:
    """What a git server tells about one kind of ref."""

    kind: str
    """``push``, ``tag`` or ``pull``."""
    clock: str
    """``own``, ``before`` (the repository's change before this one) or empty."""
    tells_start: bool = True
    keeps_id: bool = True
    shares_id: bool = False
    """Whether all hooks send one delivery id for one event."""


SENDERS = {
    "GitHub push": Sender("push", "own", shares_id=True),
    "GitHub tag": Sender("tag", "own", shares_id=True),
    "GitHub pull request": Sender("pull", "own", shares_id=True),
    "GitLab push": Sender("push", ""),
    "GitLab tag": Sender("tag", ""),
    "GitLab merge request": Sender("pull", "own"),
    "Gitea push": Sender("push", "before", keeps_id=False),
    "Gitea tag": Sender("tag", "before", tells_start=False, keeps_id=False),
    "Gogs push": Sender("push", "before"),
    "Gogs tag": Sender("tag", "before", tells_start=False),
    "Gitea pull request": Sender("pull", "own", tells_start=False, keeps_id=False),
}


@dataclass(frozen=True)
class Event:
    """One real change or touch of the ref."""

    time: float
    change: RefChange
    body: bytes


@dataclass(frozen=True)
class Outcome:
    """Whether the last live state of one history is wrong, and how much was asked."""

    without_rule: bool
    by_rule: bool
    asking: bool
    webhooks: int
    questions: int


def simulate(sender: Sender, seed: int) -> Outcome:
    """Return the outcome of one random history; a seed always has the same one."""
    dice = random.Random(seed)  # noqa: S311
    events = list(make_events(sender, dice))
    arrivals = list(make_arrivals(sender, events, dice))
    forgets_at = dice.randrange(len(arrivals)) if arrivals and dice.random() < 0.04 else -1
    arrived = {event.time for event, _ in arrivals}
    moves = [event for event in events if event.time in arrived]
    right = moves[-1].change.value if moves else ""
    by_rule, _ = _live(events, arrivals, forgets_at, asking=False)
    stands = events[-1].change.value
    asking, questions = _live(events, arrivals, forgets_at, asking=True)
    return Outcome(
        without_rule=_last_not_repeated(arrivals) != right,
        by_rule=by_rule != right,
        # The answers may tell of a change of which no webhook arrives.
        asking=asking not in (right, stands),
        webhooks=len(arrivals),
        questions=questions,
    )


def make_events(sender: Sender, dice: random.Random) -> Iterator[Event]:
    """Yield the changes of one ref, oldest first."""
    time, stands, commits, changed = START, "", ["c0"], START - HOUR
    for _ in range(dice.randint(2, 14)):
        time += _pause(dice, 0.02 if sender.kind == "pull" else 0.08)
        if dice.random() < 0.3:
            # Another ref of the repository moved meanwhile.
            changed = max(changed, time - dice.uniform(0, 300))
        values = _next_values(sender, stands, commits, dice)
        change = _change(sender, stands, values, time, changed, dice)
        changed = time if dice.random() < 0.9 else changed
        content = (change.origin, change.value, change.at, change.touch)
        yield Event(time, change, repr(content).encode())
        stands = change.value


def _pause(dice: random.Random, one_second: float) -> float:
    chance = dice.random()
    if chance < one_second:
        return dice.uniform(0.05, 0.9)
    if chance < 0.3:
        return dice.uniform(1, 30)
    return dice.uniform(30, 1_800) if chance < 0.75 else dice.uniform(HOUR, 24 * HOUR)


def _commit(commits: list[str], dice: random.Random, again: float) -> str:
    if dice.random() < again:
        return dice.choice(commits)
    commits.append(f"c{len(commits)}")
    return commits[-1]


def _next_values(sender: Sender, stands: str, commits: list[str], dice: random.Random) -> str:
    """Return the value that the ref moves to; of a pull request, the one it has for a touch."""
    again = {"push": 0.12, "tag": 0.35, "pull": 0.05}[sender.kind]
    if sender.kind != "pull":
        ends = stands and dice.random() < (0.3 if sender.kind == "tag" else 0.08)
        value = "" if ends else _commit(commits, dice, again)
        return value if value != stands else _commit(commits, dice, 0)
    head, _, phase = stands.partition(" ")
    if not stands or phase == "closed":
        return f"{head or 'c0'} open"
    chance = dice.random()
    if chance < 0.25:
        return f"{head} closed"
    return stands if chance < 0.5 else f"{_commit(commits, dice, again)} open"


def _change(
    sender: Sender, stands: str, value: str, time: float, changed: float, dice: random.Random
) -> RefChange:
    touch = stands == value
    origin: str | None = stands
    moves_head = sender.kind == "pull" and stands.endswith("open") and value.endswith("open")
    if sender.kind == "pull":
        tells = not stands or (moves_head and not touch and sender.tells_start)
        origin = stands if tells else None
    elif not sender.tells_start or (sender.clock == "before" and not value):
        origin = None
    at = {"own": float(int(time)), "before": float(int(changed)), "": None}[sender.clock]
    if at is not None and sender.clock == "own" and sender.kind != "pull" and dice.random() < 0.05:
        at += dice.randint(1, 3)
    return RefChange(
        name="#1" if sender.kind == "pull" else "refs/heads/main",
        origin=origin,
        value=value,
        at=at,
        own_clock=sender.clock == "own",
        touch=touch,
        opened=sender.kind == "pull" and not stands,
        moves_head=moves_head and not touch,
        keeps_id=sender.keeps_id,
    )


def make_arrivals(
    sender: Sender, events: list[Event], dice: random.Random
) -> list[tuple[Event, Arrival]]:
    """Return what of the events arrives, in the order of arrival."""
    hooks = dice.choices((1, 2, 3), (6, 3, 1))[0]
    outage = _outage(events, dice)
    arrivals = []
    for number, event in enumerate(events):
        for hook in range(hooks):
            delivery_id = f"{number}" if sender.shares_id else f"{number}-{hook}"
            seen_at = event.time + _delay(dice)
            lost = dice.random() < 0.02
            if outage[0] <= seen_at <= outage[1]:
                lost = dice.random() < 0.3
                seen_at = outage[1] + dice.uniform(0, 600)
            if not lost:
                arrivals.append((event, Arrival(event.change, delivery_id, event.body, seen_at)))
            if dice.random() < 0.02:
                again = seen_at + dice.expovariate(1 / (6 * HOUR))
                if not sender.keeps_id:
                    delivery_id += "-again"
                arrivals.append((event, Arrival(event.change, delivery_id, event.body, again)))
    return sorted(arrivals, key=lambda pair: pair[1].seen_at)


def _outage(events: list[Event], dice: random.Random) -> tuple[float, float]:
    if dice.random() > 0.1:
        return 0.0, -1.0
    start = dice.choice(events).time
    return start, start + dice.uniform(60, 4 * HOUR)


def _delay(dice: random.Random) -> float:
    chance = dice.random()
    if chance < 0.9:
        return dice.uniform(0.2, 3)
    return dice.uniform(3, 90) if chance < 0.98 else dice.uniform(90, 3 * HOUR)


def _last_not_repeated(arrivals: list[tuple[Event, Arrival]]) -> str:
    live, known_ids, known_bodies = "", set(), set()
    for event, arrival in arrivals:
        if arrival.delivery_id in known_ids:
            continue
        if event.change.at is not None and arrival.body in known_bodies:
            continue
        known_ids.add(arrival.delivery_id)
        known_bodies.add(arrival.body)
        live = event.change.value
    return live


def _live(
    events: list[Event],
    arrivals: list[tuple[Event, Arrival]],
    forgets_at: int,
    *,
    asking: bool,
) -> tuple[str, int]:
    """Return the value that is live at the end, and how often the git server was asked."""
    states: list[State] = []
    bodies: dict[str, bytes] = {}
    live, questions = "", 0
    for index, (_, arrival) in enumerate(arrivals):
        if index == forgets_at:
            states, bodies = [], {}
        judgement = judge(arrival, states, bodies.get(arrival.delivery_id))
        bodies.setdefault(arrival.delivery_id, arrival.body)
        states = kept(apply(judgement, states), arrival.seen_at)
        if asking and asks(judgement):
            questions += 1
            head = _head(events, arrival.seen_at + ASKED_AFTER)
            judgement = judge_again(arrival, judgement, head, states)
            states = apply(judgement, states)
        if judgement.verdict != "known" and judgement.newest_no == states[-1].no:
            routed = judgement.is_newest or judgement.rule == "asked, elsewhere"
            live = states[-1].value if routed else live
    return live, questions


def _head(events: list[Event], time: float) -> str:
    return next((event.change.value for event in reversed(events) if event.time <= time), "")


@dataclass(frozen=True)
class Totals:
    """Wrong histories among those simulated."""

    histories: int
    without_rule: int
    by_rule: int
    asking: int
    questions_in_100: float


def simulate_many(kind: str, histories: int, first_seed: int = 0) -> Totals:
    """Return how many histories of one kind of ref end wrong."""
    sender = SENDERS[kind]
    outcomes = [simulate(sender, first_seed + number) for number in range(histories)]
    webhooks = sum(outcome.webhooks for outcome in outcomes)
    return Totals(
        histories=histories,
        without_rule=sum(outcome.without_rule for outcome in outcomes),
        by_rule=sum(outcome.by_rule for outcome in outcomes),
        asking=sum(outcome.asking for outcome in outcomes),
        questions_in_100=100 * sum(outcome.questions for outcome in outcomes) / max(webhooks, 1),
    )


def main() -> None:
    """Print a table of wrong histories, a line for each kind of ref."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    write = sys.stdout.write
    title = f"wrong of {options.histories}"
    write(f"{title:22} without   rule   asking   asked of 100 webhooks\n")
    for kind in SENDERS:
        totals = simulate_many(kind, options.histories, options.seed)
        write(
            f"{kind:22}{totals.without_rule:8}{totals.by_rule:7}{totals.asking:9}"
            f"{totals.questions_in_100:10.1f}\n"
        )


if __name__ == "__main__":
    main()
