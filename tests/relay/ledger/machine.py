"""The first state machine: intake, routing, claims, outcomes and actions on a real ledger.

Each rule does something to the git servers, the ledger, the workers or the clock, tells the model,
and compares. There is no HTTP and nothing waits: the clock is the machine's. A rule that needs
something to work on first brings it about, so that each one is tried often.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import initialize

from tests.relay.ledger.example import OTHERS, PUSHED, SECOND
from tests.relay.ledger.model import Rules
from tests.relay.ledger.people import People


class LedgerMachine(People):
    """All rules."""

    @initialize(
        first=st.sampled_from(PUSHED),
        second=st.sampled_from(SECOND),
        others=st.tuples(*[st.sampled_from(OTHERS)] * 2),
        hooks=st.integers(1, 2),
    )
    def start(self, first: Rules, second: Rules, others: tuple[Rules, Rules], hooks: int) -> None:
        self.begin([first, second, *others], hooks)
