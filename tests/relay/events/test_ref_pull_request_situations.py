"""Pull requests, whose clock is the time of their last update.

Each row: what happened, the webhooks in the order of arrival, and their verdicts with the number
of the state; a question mark means uncertain. The rows are those of docs/ref-history.md.
"""

from __future__ import annotations

import pytest

from relay.events.ref_history import Arrival
from tests.relay.events.webhooks import Situation, pull, touch, verdicts_of

SITUATIONS: list[Situation] = [
    (
        "opened, closed, reopened, closed at one commit",
        [
            pull("", "A open", 100, opened=True),
            pull(None, "A closed", 200),
            pull(None, "A open", 300),
            pull(None, "A closed", 400),
        ],
        "new 1, new 2, new 3, new 4",
    ),
    (
        "Gitea: closed, reopened, closed within one second: equal bytes, a fresh id",
        [
            pull("", "A open", 100, opened=True),
            pull(None, "A closed", 200, id="1"),
            pull(None, "A open", 200, id="2"),
            pull(None, "A closed", 200, id="3"),
        ],
        "new 1, new 2, new 3?, new 4?",
    ),
    (
        "closed twice within five seconds",
        [
            pull("", "A open", 100, opened=True),
            pull(None, "A closed", 200),
            pull(None, "A open", 202),
            pull(None, "A closed", 204),
        ],
        "new 1, new 2, new 3, new 4",
    ),
    (
        "a label and an edit are the same as the newest; older ones are late",
        [
            pull("", "A open", 100, opened=True),
            touch("A open", 150),
            pull("A open", "B open", 200, moves_head=True),
            touch("B open", 250),
            touch("A open", 140),
        ],
        "new 1, same 1, new 2, same 2, late 3",
    ),
    (
        "a label of a new head comes before its synchronize",
        [
            pull("", "A open", 100, opened=True),
            touch("B open", 201),
            pull("A open", "B open", 200, moves_head=True),
            pull("B open", "C open", 300, moves_head=True),
        ],
        "new 1, new 2, same 2, new 3",
    ),
    (
        "a label of one second: of a known older head, of an unknown one",
        [
            pull("", "A open", 200, opened=True),
            pull("A open", "B open", 200, moves_head=True),
            touch("A open", 200),
            touch("C open", 200),
        ],
        "new 1, new 2, late 3, new 4?",
    ),
    (
        "opened arrives after the synchronize of its second",
        [pull(None, "B open", 200, moves_head=True), pull("", "A open", 200, opened=True)],
        "new 1, late 2",
    ),
    (
        "Gitea: a synchronize arrives after the closing of its second",
        [
            pull("", "A open", 100, opened=True),
            pull(None, "B closed", 200),
            pull(None, "B open", 200, moves_head=True),
        ],
        "new 1, new 2, late 3",
    ),
    (
        "GitHub: the same, where it tells its start",
        [
            pull("", "A open", 100, opened=True),
            pull(None, "C closed", 200),
            pull("B open", "C open", 200, moves_head=True),
        ],
        "new 1, new 2, late 3",
    ),
    (
        "closed and reopened in one second, reversed: the closing is what is missing",
        [
            pull("", "A open", 100, opened=True),
            pull(None, "A open", 200),
            pull(None, "A closed", 200),
        ],
        "new 1, new 2, late 3?",
    ),
    (
        "GitBucket: the clock does not move for a synchronize",
        [
            pull("", "A open", 100, opened=True),
            pull(None, "B open", 100, moves_head=True),
            pull(None, "C open", 100, moves_head=True),
        ],
        "new 1, new 2?, new 3?",
    ),
    (
        "a draft made ready",
        [pull("", "A open", 100, opened=True), touch("A open", 900)],
        "new 1, same 1",
    ),
    (
        "a second hook minutes later, and after it was closed",
        [
            pull("", "A open", 100, opened=True),
            pull("", "A open", 100, opened=True, id="2", seen=500),
            pull(None, "A closed", 900),
            pull("", "A open", 100, opened=True, id="3", seen=5_000),
        ],
        "new 1, same 1, new 2, same 1",
    ),
    (
        "a reopening arrives after the synchronize of its second, which begins there",
        [
            pull("", "A open", 100, opened=True),
            pull("B open", "C open", 200, moves_head=True),
            pull(None, "B open", 200),
        ],
        "new 1, new 2, late 3",
    ),
]


@pytest.mark.parametrize(("name", "arrivals", "verdicts"), SITUATIONS)
def test_situation(name: str, arrivals: list[Arrival], verdicts: str) -> None:
    assert verdicts_of(arrivals) == verdicts, name
