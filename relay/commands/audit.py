"""The commands `audit`: verify the chain of the audit file, search it, follow it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from config.patterns import PatternSet
from config.settings import load_settings
from relay.audit_query import LineFilter, as_text, parsed
from relay.audit_reading import Proof, followed_lines, prove, size_of, stored_lines
from relay.chain import Finding
from relay.commands.exits import exits
from relay.commands.filters import moment
from relay.errors import NoAuditFile

MOST_FINDINGS = 100
"""Findings that are printed; of others only the number."""

_FIELDS = ("source", "target", "delivery", "deploy", "by")

_FILE = click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)


@click.group()
def audit() -> None:
    """Verify the audit file, search it, follow it."""


@audit.command()
@_FILE
@exits
def verify(file: Path | None) -> None:
    """Find every line that was edited, removed, added or moved; exit 1 if there is one.

    With RELAY_AUDIT_KEY the end of the file is checked against its signed head. Without the key, a
    user who may write the file could have replaced all of it. Default of FILE: RELAY_AUDIT_FILE.
    """
    path, key = _path(file), _key()
    findings: list[Finding] = []
    number = 0

    def found(finding: Finding) -> None:
        nonlocal number
        number += 1
        if number <= MOST_FINDINGS:
            findings.append(finding)

    started = time.monotonic()
    proof = _with_progress(size_of(path), lambda read: prove(path, key, found, read))
    for finding in findings:
        click.echo(str(finding))
    if number > len(findings):
        click.echo(f"and {number - len(findings)} more")
    click.echo(_verdict(proof, number, time.monotonic() - started), err=bool(number))
    if number:
        sys.exit(1)


def _with_progress(total: int, work: Callable[[Callable[[int], None]], Proof]) -> Proof:
    if not sys.stderr.isatty():
        return work(lambda _: None)
    with click.progressbar(length=total, label="verify", file=sys.stderr) as bar:
        read = 0

        def progress(size: int) -> None:
            nonlocal read
            read += size
            # Drawing for each line would take longer than reading it.
            if read > total // 200:
                bar.update(read)
                read = 0

        return work(progress)


def _verdict(proof: Proof, number: int, seconds: float) -> str:
    what = f"{_counted(proof.lines, 'line')} in {_counted(proof.files, 'file')}, {seconds:.1f} s"
    if number:
        return f"the chain is broken in {_counted(number, 'place')}: {what}"
    if proof.signed:
        return f"the chain is whole up to its signed head: {what}"
    why = "its end is not proven without RELAY_AUDIT_KEY" if proof.head else "it has no head"
    return f"the chain is whole, but {why}: {what}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _filters(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option("--since", default="", help="30m, 2h, 3d, or an ISO 8601 time."),
        click.option("--until", default="", help="The same."),
        click.option("--event", "events", multiple=True, help="Name or glob, as deploy.*"),
        click.option("--repo", "repos", multiple=True, help="Name or glob, as in relay.yaml."),
        *(click.option(f"--{name}", multiple=True) for name in _FIELDS),
        click.option("--sha", "shas", multiple=True, help="How the commit begins."),
        click.option("--json", "as_json", is_flag=True, help="Print the lines as they are."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@audit.command()
@_FILE
@_filters
@exits
def query(file: Path | None, as_json: bool, **filters: Any) -> None:
    """Print the lines of the audit file that match the filters, the oldest first.

    Default of FILE: RELAY_AUDIT_FILE.
    """
    chosen = _chosen(**filters)
    _print(stored_lines(_path(file), chosen.since), chosen, as_json)


@audit.command()
@_FILE
@click.option("--follow", "-f", is_flag=True, help="Print new lines as they are written.")
@click.option("--lines", "-n", type=click.IntRange(0, 100_000), default=20, show_default=True)
@_filters
@exits
def tail(file: Path | None, follow: bool, lines: int, as_json: bool, **filters: Any) -> None:
    """Print the latest lines of the audit file, and with -f new lines as they are written.

    Default of FILE: RELAY_AUDIT_FILE.
    """
    path, chosen = _path(file), _chosen(**filters)
    # Opened before the stored lines are read, so that no new line is missed.
    coming = followed_lines(path) if follow else iter(())
    _print(_latest(path, chosen, lines), LineFilter(), as_json)
    try:
        _print(coming, chosen, as_json)
    except KeyboardInterrupt:
        sys.exit(0)


def _latest(path: Path, chosen: LineFilter, number: int) -> list[bytes]:
    kept: list[bytes] = []
    for line in stored_lines(path):
        entry = parsed(line)
        if entry is not None and chosen.matches(entry):
            kept.append(line)
            if len(kept) > 2 * number:
                kept = kept[-number:] if number else []
    return kept[-number:] if number else []


def _print(lines: Iterable[bytes], chosen: LineFilter, as_json: bool) -> None:
    for line in lines:
        entry = parsed(line)
        if entry is not None and chosen.matches(entry):
            click.echo(line.rstrip(b"\n") if as_json else as_text(entry))


def _chosen(
    since: str,
    until: str,
    events: tuple[str, ...],
    repos: tuple[str, ...],
    shas: tuple[str, ...],
    **values: tuple[str, ...],
) -> LineFilter:
    try:
        return LineFilter(
            moment(since, "--since"),
            moment(until, "--until"),
            PatternSet(events, "text") if events else None,
            PatternSet(repos, "path", ignore_case=True) if repos else None,
            {name: frozenset(given) for name, given in values.items() if given},
            shas,
        )
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _path(given: Path | None) -> Path:
    path = given or load_settings().audit_file
    if path is None:
        raise NoAuditFile("no audit file is configured: set RELAY_AUDIT_FILE, or name FILE")
    if not path.exists():
        raise NoAuditFile(f"{path} does not exist: check RELAY_AUDIT_FILE, or name FILE")
    return path.absolute()


def _key() -> bytes | None:
    key = load_settings().audit_key
    return key.get_secret_value().encode() if key else None
