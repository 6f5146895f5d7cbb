"""Rules of the first state machine: git servers, and how their webhooks arrive."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.relay.ledger.example import Example, pick
from tests.relay.ledger.git_servers import Ref, Webhook

NUMBER = st.integers(0, 11)
"""Which of the things that a rule may concern; small, so that examples shrink."""


class Pushes(Example):
    """The rules."""

    # --- git servers

    @rule(number=NUMBER)
    def push(self, number: int) -> None:
        self.push_to(pick(self.refs[:2], number))
        self.count("push")

    @rule(number=NUMBER, commit=NUMBER)
    def force_back(self, number: int, commit: int) -> None:
        self._move(pick(self.refs[:2], number), commit)
        self.count("force_back")

    @rule(commit=NUMBER)
    def move_tag(self, commit: int) -> None:
        self._move(self.refs[2], commit)
        self.count("move_tag")

    def _move(self, ref: Ref, commit: int) -> None:
        """Move a ref to a commit that it left."""
        while len(ref.commits) < 2 or not ref.exists:
            self.push_to(ref)
        self.push_to(ref, pick([one for one in ref.commits if one != ref.head], commit))

    @rule(number=NUMBER)
    def delete(self, number: int) -> None:
        self._delete(pick(self.refs, number))
        self.count("delete")

    def _delete(self, ref: Ref) -> None:
        if not ref.exists:
            self.push_to(ref)
        self.git.delete(ref, self.engine.now)
        self._sent(ref)

    @rule(number=NUMBER)
    def restore(self, number: int) -> None:
        """A branch or tag comes back at the commit where it was."""
        ref = pick(self.refs, number)
        if ref.exists or not ref.commits:
            self._delete(ref)
        self.push_to(ref, ref.commits[-1])
        self.count("restore")

    @rule()
    def change_pull_request(self) -> None:
        self._open_or_push()
        self.count("change_pull_request")

    def _open_or_push(self) -> None:
        action = "synchronize" if self.pull.is_open else "reopened"
        if not self.pull.state:
            action = "opened"
        self.git.change_pull(self.pull, self.engine.now, action)
        self._sent(self.pull)

    @rule()
    def close_pull_request(self) -> None:
        if not self.pull.is_open:
            self._open_or_push()
        self.git.change_pull(self.pull, self.engine.now, "closed")
        self._sent(self.pull)
        self.count("close_pull_request")

    @rule()
    def label(self) -> None:
        """The moves before it arrive first; only copies of them may come later."""
        if not self.pull.is_open:
            self._open_or_push()
        for webhook in [*self.pull.under_way]:
            self._arrive(webhook)
        self.git.label(self.pull, self.engine.now, "preview")
        self._sent(self.pull)
        self._arrive(self.pull.under_way[-1])
        self.count("label")

    def push_to(self, ref: Ref, commit: str = "") -> None:
        """Make a ref, or move it."""
        self.git.push(ref, self.engine.now, commit)
        self._sent(ref)

    def _sent(self, ref: Ref) -> None:
        self.engine.now = max(self.engine.now, ref.last_at)

    # --- arrivals

    def _arrive(self, webhook: Webhook) -> None:
        webhook.ref.under_way.remove(webhook)
        self.arrive(webhook)

    def arrive_everything(self) -> None:
        """Let all webhooks arrive, each ref's in order."""
        for ref in (*self.refs, self.pull):
            for webhook in [*ref.under_way]:
                self._arrive(webhook)

    @rule(number=NUMBER)
    def arrive_in_order(self, number: int) -> None:
        if not any(ref.under_way for ref in (*self.refs, self.pull)):
            self.push_to(pick(self.refs, number))
        refs = [ref for ref in (*self.refs, self.pull) if ref.under_way]
        self._arrive(pick(refs, number).under_way[0])
        self.count("arrive_in_order")

    @rule()
    def arrive_all(self) -> None:
        self.arrive_everything()
        self.count("arrive_all")

    @rule(number=NUMBER, place=NUMBER)
    def arrive_reordered(self, number: int, place: int) -> None:
        """Others are late then, or second hooks of what is known."""
        refs = [one for one in (*self.refs, self.pull) if one.has_clock]
        ref = pick([one for one in refs if len(one.under_way) > 1] or self.refs[:1], number)
        while len(ref.under_way) < 2:
            self.push_to(ref)
        self._arrive(pick(ref.under_way[1:], place))
        self.count("arrive_reordered")

    def _arrived(self, *, has_clock: bool = False) -> list[Webhook]:
        refs = [ref for ref in (*self.refs, self.pull) if ref.has_clock or not has_clock]
        if not any(ref.arrived for ref in refs):
            self.push_to(self.refs[0])
            self.arrive_everything()
        return [one for ref in refs for one in ref.arrived[-4:]]

    @rule(number=st.integers(0, 15))
    def redeliver(self, number: int) -> None:
        self.arrive(pick(self._arrived(), number))
        self.count("redeliver")

    @rule(number=st.integers(0, 15))
    def redeliver_with_new_id(self, number: int) -> None:
        moves = [one for one in self._arrived(has_clock=True) if not one.is_touch]
        if moves:
            self.arrive(self.git.again(pick(moves, number), new_id=True))
            self.count("redeliver_with_new_id")
