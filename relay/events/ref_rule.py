"""The rule that says what a webhook is among the states of its ref: one function for each part,
in the order of the rule in docs/ref-history.md. No I/O.

A part returns its judgement, or None to go on to the next part. RULES at the end lists them.
"""

from __future__ import annotations

from collections.abc import Callable

from relay.events.ref_case import CLOCK_TOLERANCE, Case
from relay.events.ref_change import CLOSED
from relay.events.ref_state import Judgement, State, has_gap

COPY_WAIT = 60.0
"""Seconds after which equal content is a copy: nobody makes one change twice with one clock."""

QUIET = 600.0
"""Seconds without a webhook after which a state expects none any more."""

OLD = 600.0
"""Seconds that a first event may be old before its place becomes uncertain."""


def rule_0_known_id(case: Case) -> Judgement | None:
    """0. A known delivery id with an equal body is known. With another body it goes on."""
    return case.known("0") if case.known_body == case.body else None


def first_event(case: Case) -> Judgement | None:
    """The first event of a ref is new. It stands here because all other parts need states."""
    if case.states:
        return None
    change = case.change
    if change.own_clock and change.at is not None:
        doubt = "it is the first one and already old" if case.seen_at - change.at > OLD else ""
    else:
        doubt = "it is the first one and starts at a commit" if change.origin else ""
    return case.new("first", doubt)


def rule_1_repeat(case: Case) -> Judgement | None:
    """1. Equal body, or the same move with the same clock, as a kept state: same if there is a
    reason to take it for a copy. Else it goes on: two changes in one second can have equal
    bytes. Without a clock all changes between the same commits have equal bytes."""
    change = case.change
    if change.at is None:
        return None
    equal_bodies = case.states.with_body(case.body)
    equal_moves = [
        state
        for state in case.states.with_move(change.origin, change.value)
        if state.at == change.at and state.own_clock == change.own_clock
    ]
    if not equal_bodies and not equal_moves:
        return None
    for state in sorted({*equal_bodies, *equal_moves}, key=lambda state: -state.pos):
        if _is_copy(case, state, state.body == case.body):
            return case.same("1", state)
    return None


def _is_copy(case: Case, state: State, equal_body: bool) -> bool:
    """1. The reasons: it is S; the event starts elsewhere than at S.to; a copy is expected; a
    minute has passed since its last webhook (equal move only: and own clock); S is later than the
    event by an own clock, and an event cannot have happened before a state and after it."""
    change, newest = case.change, case.newest
    quiet = case.seen_at - state.last_seen >= COPY_WAIT
    return (
        state is newest
        or case.starts_elsewhere
        or case.expects_copy(state)
        or (quiet and (equal_body or change.own_clock))
        or (change.own_clock and (case.seconds_after_newest or 0) < 0)
    )


def rule_1_near_repeat(case: Case) -> Judgement | None:
    """1. With an own clock, the same move within 5 s that does not start at S.to is same. Where the
    event does not tell its start, this says nothing: a request can be closed twice in 5 s."""
    change = case.change
    if change.at is None or not change.own_clock or not case.starts_elsewhere:
        return None
    for state in case.equal_moves():
        if state.own_clock and state.at is not None:
            return case.same("1 near", state)
    return None


def rule_1_sent_twice(case: Case) -> Judgement | None:
    """1. Gitea and Forgejo send a branch that is restored on the web page twice, the second time
    with the clock of the first: the move of S again, within a minute, is same as S."""
    newest = case.newest
    if case.change.own_clock or case.change.at is None or not case.starts_elsewhere:
        return None
    is_move_of_newest = (newest.origin, newest.value) == (case.change.origin, case.change.value)
    if is_move_of_newest and case.seen_at - newest.last_seen < COPY_WAIT:
        return case.same("1 twice", newest, takes_clock=True)
    return None


def rule_2_touch(case: Case) -> Judgement | None:
    """2. A touch that names S.to is same as S."""
    if case.change.touch and case.change.value == case.newest.value:
        return case.same("2 touch", case.newest)
    return None


def rule_2_move_after_touch(case: Case) -> Judgement | None:
    """2. The move that led to S, if S is known from a touch only, is same as S and fills in where S
    starts. (Touches have ended in the part before.)"""
    newest, change = case.newest, case.change
    if newest.touched and change.value == newest.value:
        return case.same("2 move", newest, takes_clock=True)
    return None


def rule_3_links(case: Case) -> Judgement | None:
    """3. Within 5 s of an own clock the links win: it starts at S.to: new; it ends where S with a
    gap begins: late. Where both hold the clock decides after all."""
    seconds = case.seconds_after_newest
    if not seconds or not case.change.own_clock or abs(seconds) > CLOCK_TOLERANCE:
        return None
    ends_before = case.ends_where_newest_begins
    if case.starts_at_newest == ends_before:
        return None
    return case.late("3 links", len(case.states) - 1) if ends_before else case.new("3 links")


def rule_3_clock(case: Case) -> Judgement | None:
    """3. Newer than S: new. Older: late, placed by the clock; uncertain if it starts at S.to."""
    seconds = case.seconds_after_newest
    if not seconds:
        return None
    if seconds > 0:
        return case.new("3 clock")
    doubt = "its clock is older than the newest state, where it starts"
    return case.late("3 clock", case.place_by_clock(), doubt if case.starts_at_newest else "")


def rule_4_opened(case: Case) -> Judgement | None:
    """4. "opened" is late: the request has states already, and it is the first of all."""
    return case.late("4 opened", 0) if case.change.opened else None


def rule_4_touch(case: Case) -> Judgement | None:
    """4. A touch of a known older value is late, of an unknown one new and uncertain."""
    if not case.change.touch:
        return None
    for state in case.states.with_value(case.change.value):
        if state is not case.newest:
            return case.late("4 touch", case.states.place(state) + 1)
    return case.new("4 touch", "nothing tells when the ref came to the value that it names")


def rule_4_head_moved(case: Case) -> Judgement | None:
    """4. A head that moved while S is closed is late: only an open request's head moves."""
    if case.change.moves_head and case.newest.value.endswith(CLOSED):
        return case.late("4 head", len(case.states) - 1)
    return None


def rule_4_untold_start(case: Case) -> Judgement | None:
    """4. Where the start is not told: S.to is same; where S with a gap begins is late, uncertain
    where S does not tell its start either; a known value that expects a copy is same; else new,
    uncertain unless it is a deletion."""
    change, newest = case.change, case.newest
    if change.origin is not None:
        return None
    if change.value == newest.value:
        return case.same("4 untold", newest)
    last = len(case.states) - 1
    if newest.origin in (None, change.value) and has_gap(case.states, last) and last:
        doubt = "" if newest.origin else "the newest state does not tell where it starts"
        return case.late("4 untold", last, doubt)
    for state in case.states.with_value(change.value):
        if case.may_have_clock_of(state) and case.expects_copy(state):
            return case.same("4 untold", state)
    return case.new("4 untold", "it does not tell where it starts" if change.value else "")


def rule_4_closes_gap(case: Case) -> Judgement | None:
    """4. It starts where the state before a gap ends and ends where the state after it begins:
    late; uncertain if it also starts at S.to."""
    change, states = case.change, case.states
    for after in states.with_origin(change.value):
        index = states.place(after)
        is_around = index > 0 and states[index - 1].value == change.origin
        if is_around and has_gap(states, index):
            doubt = "it fits a gap between older states, and after the newest one too"
            return case.late("4 gap", index, doubt if case.starts_at_newest else "")
    return None


def rule_4_starts_at_newest(case: Case) -> Judgement | None:
    """4. It starts at S.to: new; same, uncertain, if an older equal move expects a copy; new,
    uncertain, if there is an older equal move without, or if it ends where a state after a gap
    begins."""
    if not case.starts_at_newest:
        return None
    moves = case.equal_moves()
    for state in moves:
        if case.expects_copy(state):
            return case.same("4 start", state, "it may be the same move made once more")
    if moves:
        return case.new("4 start", "it may be a late copy of the same move")
    if case.gap_at_end() is not None:
        return case.new("4 start", "it ends where an older state begins")
    return case.new("4 start")


def rule_4_same_move(case: Case) -> Judgement | None:
    """4. The same move as a kept state is same. But without a clock, where redelivery keeps the id:
    from three states on, with all usual copies there and none for ten minutes, the ref made the
    move again; go on."""
    change = case.change
    moves = case.equal_moves()
    if not moves:
        return None
    may_be_again = change.at is None and change.keeps_id and len(case.states) >= 3
    for state in moves:
        quiet = case.seen_at - state.last_seen >= QUIET
        if not (may_be_again and quiet and not case.expects_copy(state)):
            return case.same("4 move", state)
    return None


def rule_4_ends_at_gap(case: Case) -> Judgement | None:
    """4. It ends at a commit where a state after a gap begins: late."""
    index = case.gap_at_end()
    return None if index is None else case.late("4 end", index)


def rule_4_else(case: Case) -> Judgement | None:
    """4. Else new, uncertain."""
    return case.new("4 else", "it does not start where the ref stood")


RULES: tuple[Callable[[Case], Judgement | None], ...] = (
    rule_0_known_id,
    first_event,
    rule_1_repeat,
    rule_1_near_repeat,
    rule_1_sent_twice,
    rule_2_touch,
    rule_2_move_after_touch,
    rule_3_links,
    rule_3_clock,
    rule_4_opened,
    rule_4_touch,
    rule_4_head_moved,
    rule_4_untold_start,
    rule_4_closes_gap,
    rule_4_starts_at_newest,
    rule_4_same_move,
    rule_4_ends_at_gap,
    rule_4_else,
)
"""All parts, in the order in which they are asked. The last one always answers."""
