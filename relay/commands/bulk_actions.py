"""Bulk actions of commands on deliveries and deploys: choosing, batches, output."""

from __future__ import annotations

import asyncio
import io
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, BinaryIO, NamedTuple, cast

import click
import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from config.errors import RelayError
from config.settings import load_settings
from relay import audit
from relay.audit_fields import action_fields
from relay.commands.filters import is_filtered
from relay.commands.ledger_access import open_ledger
from relay.commands.setup import audit_to_stderr
from relay.commands.terminal import terminal
from relay.commands.user import user_name
from relay.console.words import PLURALS
from relay.events.ids import row_number
from relay.ledger.actions import Done, Wish
from relay.ledger.filters import Filter
from relay.ledger.ledger import Ledger, Work
from relay.ledger.lists import list_numbers
from relay.ledger.records import Record, RecordKind, read_records
from relay.ledger.transaction import Reader, Transaction
from relay.tables import brief

BATCH = 50
"""Actions of one batch. Ctrl-C takes effect between two batches."""

MANY = 2 * BATCH
"""Actions from which on a progress bar is shown."""

INTERRUPTED = 130
"""The exit code after Ctrl-C."""

Act = Callable[[Transaction, int, Wish], Awaitable[Done]]

Choose = Callable[[Reader, int], Awaitable[list[int]]]
"""Returns the numbers that match a filter, the newest first; the last argument bounds them."""


class Verb(NamedTuple):
    """An action of a command."""

    name: str
    past: str
    """As in ``deploy-1 is …``."""
    act: Act


class ActOptions(NamedTuple):
    """The options of an action."""

    dry_run: bool = False
    yes: bool = False
    force: bool = False
    as_json: bool = False


def chosen_by(kind: RecordKind, chosen: Filter) -> Choose:
    """Return a function that reads the numbers that match a filter."""

    async def choose(reader: Reader, limit: int) -> list[int]:
        return await list_numbers(reader, kind, chosen, limit)

    return choose


def act_on(
    kind: RecordKind,
    verb: Verb,
    ids: Sequence[str],
    choose: Choose,
    limit: int,
    options: ActOptions,
) -> None:
    """Apply an action to the ids, or to all that match the filter after a person has confirmed."""
    has_filter = is_filtered()
    if bool(ids) == has_filter:
        raise click.UsageError("give either IDs or a filter such as --status, --repo or --since")
    asyncio.run(_Acting(kind, verb, options, is_filtered=has_filter).run(ids, choose, limit))


class _Acting:
    """One command that acts."""

    def __init__(
        self, kind: RecordKind, verb: Verb, options: ActOptions, *, is_filtered: bool
    ) -> None:
        self._kind = kind
        self._verb = verb
        self._options = options
        self._is_filtered = is_filtered
        self._by = user_name()
        self._refused = 0

    async def run(self, ids: Sequence[str], choose: Choose, limit: int) -> None:
        async with open_ledger(load_settings()) as ledger:
            numbers = await self._numbers(ledger, ids, choose, limit)
            results = await self._act(ledger, numbers, dry=True)
            possible = [
                number for number, done in zip(numbers, results, strict=True) if not done.refusal
            ]
            self._refuse(results)
            if self._is_filtered and not results and not self._refused:
                click.echo(f"nothing to {self._verb.name} matches the filter", err=True)
            if self._options.dry_run or (self._is_filtered and not self._options.yes):
                records = await ledger.read(partial(_read, kind=self._kind, numbers=possible))
                for record in records:
                    click.echo(
                        f"would {self._verb.name}  {brief(record)}", err=self._options.as_json
                    )
            if possible and not self._options.dry_run:
                self._ask(len(possible))
                await self._do(ledger, possible)
        if self._refused and not self._is_filtered:
            sys.exit(1)

    async def _numbers(
        self, ledger: Ledger, ids: Sequence[str], choose: Choose, limit: int
    ) -> list[int]:
        if self._is_filtered:
            newest = await ledger.read(lambda reader: choose(reader, limit + 1))
            if len(newest) > limit:
                click.echo(f"there are more than these {limit}: raise --limit", err=True)
            # The oldest first, so that replays keep the order.
            return newest[:limit][::-1]
        numbers = []
        for id_ in dict.fromkeys(ids):
            number = row_number(self._kind, id_)
            if number is None:
                self._refuse([Done(id=id_, refusal="unknown")])
            else:
                numbers.append(number)
        return numbers

    def _refuse(self, results: Sequence[Done]) -> None:
        for done in results:
            if done.refusal:
                self._refused += 1
                self._tell(done)

    def _ask(self, number: int) -> None:
        if self._is_filtered and not self._options.yes:
            what = self._kind if number == 1 else PLURALS[self._kind]
            click.confirm(f"{self._verb.name} {number} {what}?", abort=True)

    async def _act(self, ledger: Ledger, numbers: Sequence[int], *, dry: bool) -> list[Done]:
        wish = Wish(by=self._by, forced=self._options.force, dry=dry)
        done: list[Done] = []
        for start in range(0, len(numbers), BATCH):
            batch = numbers[start : start + BATCH]
            commits = [ledger.commit(self._work(number, wish)) for number in batch]
            done += await asyncio.gather(*commits)
        return done

    def _work(self, number: int, wish: Wish) -> Work[Done]:
        async def work(tx: Transaction) -> Done:
            return await self._verb.act(tx, number, wish)

        return work

    async def _do(self, ledger: Ledger, numbers: Sequence[int]) -> None:
        """Act in batches. Ctrl-C ends it after the current batch and its results."""
        count, is_complete = 0, False
        try:
            with _bar(self._verb.name, len(numbers)) as bar, interruption() as interrupted:
                audit_to_stderr(cast(BinaryIO, _AboveBar()) if bar is not None else None)
                for start in range(0, len(numbers), BATCH):
                    if interrupted.is_set():
                        break
                    batch = numbers[start : start + BATCH]
                    results = await self._act(ledger, batch, dry=False)
                    count += len(batch)
                    for done in results:
                        self._refused += bool(done.refusal)
                        self._tell(done)
                    if bar is not None:
                        bar.update(bar.task_ids[0], completed=count)
            is_complete = count == len(numbers)
        except RelayError:
            if count:
                _say_how_far(count, len(numbers))
            raise
        if not is_complete:
            _say_how_far(count, len(numbers))
            sys.exit(INTERRUPTED)

    def _tell(self, done: Done) -> None:
        """Write the audit lines and print the result."""
        for line in done.lines:
            audit.log.info(line.event, **action_fields(line))
        if done.lines:
            audit.flush()
        if self._options.as_json:
            click.echo(msgspec.json.encode(_as_json(done, self._kind)))
        elif done.refusal:
            click.echo(f"{done.id}: {done.message(self._kind)}", err=True)
        else:
            if done.consequence is not None and not done.consequence.is_harmless:
                click.echo(f"{done.id}: {done.consequence.in_words()}", err=True)
            new = f" as {done.new}" if done.new else ""
            click.echo(f"{done.id} is {self._verb.past}{new}")


async def _read(reader: Reader, kind: RecordKind, numbers: Sequence[int]) -> list[Record]:
    return await read_records(reader, kind, numbers)


def _as_json(done: Done, kind: RecordKind) -> dict[str, Any]:
    """Return the result for one: what is live, what would replace it, and how far back that is."""
    fields: dict[str, Any] = {"id": done.id, "new": done.new, "refusal": done.message(kind)}
    if done.consequence is not None:
        fields |= done.consequence.as_json()
    return fields


@contextmanager
def interruption() -> Iterator[asyncio.Event]:
    """Yield an event that Ctrl-C sets, instead of interrupting the current work."""
    loop, interrupted = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, interrupted.set)
    try:
        yield interrupted
    finally:
        loop.remove_signal_handler(signal.SIGINT)


@contextmanager
def _bar(verb: str, total: int) -> Iterator[Progress | None]:
    """Yield a progress bar on standard error, if that is a terminal and the work is long."""
    console = terminal(error=True)
    if console is None or total < MANY:
        yield None
        return
    shown = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *(*shown, TimeRemainingColumn()),
        console=console,
        redirect_stdout=sys.stdout.isatty(),
    ) as bar:
        bar.add_task(verb, total=total)
        yield bar


def _say_how_far(count: int, of: int) -> None:
    click.echo(f"stopped after {count} of {of}; it is safe to run the command again", err=True)


class _AboveBar(io.RawIOBase):
    """Standard error while a progress bar is shown: rich prints the lines above it."""

    def write(self, data: Any, /) -> int:
        sys.stderr.write(bytes(data).decode())
        return len(data)
