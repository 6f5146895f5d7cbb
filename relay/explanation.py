"""Explains what an event would cause: every route with its reason, and the calls, redacted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from config.model import ProviderName
from relay.events.event import Event, Ignored, PullRequest
from relay.notices import Messenger
from relay.planning import Call, Recipe, placeholder
from relay.providers import PROVIDERS
from relay.providers.detect import UNKNOWN, event_header
from relay.providers.payloads import is_no_commit
from relay.routing import RouteDecision, Router
from relay.templates import PlanError


def understood(
    provider: ProviderName, payload: bytes, event: str | None, *, hint: str
) -> Event | Ignored:
    """The event of a payload that was stored, whose event header is ``event``, or is recognised.

    ``hint`` is how to name the header, for where it had to be recognised and was not. Raises
    Malformed.
    """
    headers = event_header(provider, payload, event)
    if event is None and UNKNOWN in headers.values():
        return Ignored(f"its fields tell of no event that deploys; if it is one, {hint}")
    return PROVIDERS[provider](["no secret is needed"]).parse(headers, payload)


def explanation(
    router: Router,
    recipes: Mapping[str, Recipe],
    event: Event,
    source: str,
    messengers: Sequence[Messenger] = (),
    *,
    provider: ProviderName | None,
) -> dict[str, Any]:
    """Return the whole explanation as data. ``provider`` is the source's; None where relay.yaml
    has no such source any more.
    """
    return {
        "event": _describe(event) | _describe_change(event, provider),
        "routes": [
            {
                "route": decision.route.name,
                "matched": decision.matched,
                "reason": decision.reason,
                "calls": [
                    call | {"notifies": _notified(messengers, call["target"], event.repo)}
                    for call in _calls(decision, recipes, event, source)
                ]
                if decision.matched
                else [],
            }
            for decision in router.decide(event, source)
        ],
    }


def event_facts(described: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of an explained event for people."""
    shown = {"before", "after", "clock", "own_clock", "redelivery_keeps_id"}
    for key, value in described.items():
        if key not in shown:
            yield key.replace("_", " "), value
    before, clock = described["before"], described["clock"]
    yield "before", "not told" if before is None else before or "none: the ref did not exist"
    yield "after", described["after"] or "none: the ref is deleted"
    which = "this event" if described["own_clock"] else "the repository's change before this event"
    yield "clock", f"{clock}, the time of {which}" if clock else "none"
    keeps = described["redelivery_keeps_id"]
    if keeps is not None:
        yield "redelivery", f"has {'the same' if keeps else 'a new'} delivery id"


def as_text(explained: Mapping[str, Any]) -> str:
    """The explanation for people."""
    lines = [f"{name + ':':<12}{value}" for name, value in event_facts(explained["event"])]
    for route in explained["routes"]:
        lines.append("")
        lines.append(f"{'✓' if route['matched'] else '✗'} {route['route']}: {route['reason']}")
        for call in route["calls"]:
            if "error" in call:
                lines.append(f"    {call['target']}: cannot be called: {call['error']}")
                continue
            lines.append(f"    {call['target']}: {call['method']} {call['url']}")
            lines += [f"        {name}: {value}" for name, value in call["headers"].items()]
            if call["body"]:
                lines.append(f"        {call['body']}")
            lines += [
                f"        notifies {one['notifier']} of {', '.join(one['on'])}"
                for one in call["notifies"]
            ]
    taken = sum(route["matched"] for route in explained["routes"])
    lines += ["", f"{taken} of {len(explained['routes'])} routes match"]
    return "\n".join(lines)


def _describe(event: Event) -> dict[str, Any]:
    described: dict[str, Any] = {
        "kind": event.kind,
        "repo": event.repo,
        "ref": event.ref,
        "sha": event.sha,
        "author": " / ".join(event.author.names()),
    }
    if isinstance(event, PullRequest):
        return described | {
            "number": event.number,
            "action": event.action,
            "base": event.base_ref,
            "draft": event.draft,
            "fork": event.fork,
        }
    complete = "" if event.files_complete else ", and perhaps more: the sender's list is incomplete"
    return described | {"files": f"{len(set(event.files))} changed{complete}"}


def _describe_change(event: Event, provider: ProviderName | None) -> dict[str, Any]:
    """Return what the history of a ref reads of an event.

    ``before`` and ``after`` are empty where the ref does not exist; ``before`` is None where the
    sender does not tell it.
    """
    clock = event.changed_at
    return {
        "repo_id": event.repo_id,
        "before": _value_before(event),
        "after": _value_after(event),
        "clock": None
        if clock is None
        else f"{datetime.fromtimestamp(clock, UTC):%Y-%m-%dT%H:%M:%S}Z",
        "own_clock": clock is not None and (isinstance(event, PullRequest) or event.own_clock),
        "redelivery_keeps_id": PROVIDERS[provider].keeps_delivery_id if provider else None,
    }


def _iso(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}Z"


def _value_before(event: Event) -> str | None:
    if isinstance(event, PullRequest):
        return event.before_sha or None
    if not event.before_told:
        return None
    return "" if is_no_commit(event.before) else event.before


def _value_after(event: Event) -> str:
    if not isinstance(event, PullRequest):
        return "" if is_no_commit(event.after) else event.after
    if event.action == "closed":
        return f"{event.head_sha} closed"
    # A label or an edit may also be one of a closed pull request; the event does not say.
    opened = event.action in ("opened", "reopened", "synchronize")
    return f"{event.head_sha} open" if opened else event.head_sha


def _calls(
    decision: RouteDecision, recipes: Mapping[str, Recipe], event: Event, source: str
) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    for target in decision.route.deploy:
        try:
            call = recipes[target].plan(
                event,
                route=decision.route.name,
                delivery="example",
                source=source,
                reveal=placeholder,
            )
        except PlanError as error:
            calls.append({"target": target, "error": str(error)})
        else:
            calls.append({"target": target, **_shown(call)})
    return calls


def _notified(messengers: Sequence[Messenger], target: str, repo: str) -> list[dict[str, Any]]:
    return [
        {"notifier": messenger.name, "on": list(messenger.kinds)}
        for messenger in messengers
        if messenger.listens(target, repo)
    ]


def _shown(call: Call) -> dict[str, Any]:
    return {
        "method": call.method,
        "url": call.url,
        "headers": dict(call.headers),
        "body": call.body.decode() if call.body is not None else "",
    }
