"""Turns an event and a target into the exact HTTP call to make. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

import orjson

from config.errors import ConfigProblem
from config.loading import Loaded
from config.model import On, OnUncertain, SecretRef, Target, Text
from config.preset import Preset, presets
from relay.events.event import NO_COMMIT, Event, Person, PullRequest, Push
from relay.templates import PlanError, Template

Reveal = Callable[[SecretRef], str]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, ready to be made. With revealed secrets it must never be logged."""

    method: str
    # A traceback that shows a call must not show the secrets in it.
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)


class Recipe:
    """How calls to one target are made: its preset, what the target changes, and the templates."""

    def __init__(self, name: str, target: Target, preset: Preset) -> None:
        """Raises PlanError where a template is not well formed."""
        self.name = name
        self.method = target.method or preset.method
        self.success = target.success or preset.success
        self.deployment_id = target.deployment_id or preset.deployment_id
        self.on_uncertain: OnUncertain | None = target.on_uncertain or (
            "retry" if preset.idempotent else None
        )
        """None: again where its state is still the newest of its ref."""
        self._options = target.options
        self._url = _compile(target.url, "url", in_url=True)
        self._path = Template(preset.path, "path", in_url=True)
        self._query = _compile_all({**preset.query, **(target.query or {})}, "query")
        self._headers = _compile_all(_headers(preset.headers, target.headers or {}), "headers")
        # A body of the target's own replaces the preset's, of whichever kind.
        own = target.json_body is not None or target.form is not None
        json_body = target.json_body if own else preset.json_body
        form = target.form if own else preset.form
        self._json = None if json_body is None else _compile_json(json_body, "json")
        self._form = None if form is None else _compile_all(form, "form")
        texts = (*self._headers.values(), *(self._form or {}).values(), *self._options.values())
        everything = (
            *(self._url, self._path, *self._query.values(), *self._headers.values()),
            *(*(self._form or {}).values(), *_leaves(self._json)),
        )
        self.names_route = any(
            isinstance(text, Template) and "route" in text.names for text in everything
        )
        """Calls of two routes may differ."""
        self._has_secrets = any(
            isinstance(text, SecretRef) for text in (*texts, *_leaves(self._json))
        )

    def plan(self, event: Event, *, route: str, delivery: str, source: str, reveal: Reveal) -> Call:
        """The call for one event. Raises PlanError where a template does not render."""
        context = {
            "event": event_context(event),
            "target": {
                key: reveal(value) if isinstance(value, SecretRef) else value
                for key, value in self._options.items()
            },
            "route": route,
            "delivery": {"id": delivery, "source": source},
        }
        return self.render(context, reveal)

    def render(self, context: Mapping[str, Any], reveal: Reveal) -> Call:
        """The call for what templates may say. Raises PlanError where one does not render."""
        headers = _render_all(self._headers, context, reveal)
        for name, value in headers.items():
            if _CONTROL.search(value):
                raise PlanError(f"headers.{name}: a control character")
        body: bytes | None = None
        if self._json is not None:
            try:
                body = orjson.dumps(_render_json(self._json, context, reveal))
            except TypeError as error:
                raise PlanError(f"json: {error}") from None
            _default_type(headers, "application/json")
        elif self._form is not None:
            body = urlencode(_render_all(self._form, context, reveal)).encode()
            _default_type(headers, "application/x-www-form-urlencoded")
        url = _join(
            _render(self._url, context, reveal),
            self._path.render(context),
            _render_all(self._query, context, reveal),
        )
        return Call(self.method, url, headers, body)

    def show(self, call: Call, event: Event, *, route: str, delivery: str, source: str) -> Call:
        """A call that ``plan`` made, with the names of its secrets in their place, but for those
        in its URL. Empty where a template does not render without them."""
        if not self._has_secrets:
            return call
        try:
            return self.plan(
                event, route=route, delivery=delivery, source=source, reveal=placeholder
            )
        except PlanError:
            return Call(call.method, "", {}, None)


def event_context(event: Event) -> dict[str, Any]:
    """What templates may say of an event; only names that its kind has."""
    author = {
        "name": event.author.name,
        "email": event.author.email,
        "login": event.author.login,
    }
    context: dict[str, Any] = {
        "kind": event.kind,
        "repo": event.repo,
        "ref": event.ref,
        "sha": event.sha,
        "sender": event.sender,
        "author": author,
    }
    if isinstance(event, PullRequest):
        return context | {
            "branch": event.head_ref,
            "base_branch": event.base_ref,
            "number": event.number,
            "action": event.action,
            "title": event.title,
            "draft": event.draft,
            "merged": event.merged,
            "fork": event.fork,
            "head_repo": event.head_repo,
            "labels": list(event.labels),
        }
    return context | {
        "branch": event.branch,
        "tag": event.tag,
        "before": event.before,
        "created": event.created,
        "forced": event.forced,
        "message": event.message,
    }


def placeholder(ref: SecretRef) -> str:
    """Return what an explanation shows in place of a secret."""
    return str(ref)


def recipes(loaded: Loaded) -> dict[str, Recipe]:
    """The recipe of every target. Raises PlanError."""
    return {
        name: Recipe(name, target, presets()[target.preset])
        for name, target in loaded.config.targets.items()
    }


def rehearse(loaded: Loaded) -> list[ConfigProblem]:
    """Plan every call that the routes can lead to, so that a template that cannot render is found
    before a deploy depends on it."""
    config = loaded.config
    problems: list[ConfigProblem] = []
    kinds: dict[str, set[On]] = {}
    for route in config.routes:
        for name in route.deploy:
            kinds.setdefault(name, set()).update(route.on)
    for name, target in config.targets.items():
        preset = presets()[target.preset]
        try:
            recipe = Recipe(name, target, preset)
            for kind in sorted(kinds.get(name) or preset.kinds):
                recipe.plan(
                    _EXAMPLES[kind],
                    route="example",
                    delivery="example",
                    source="example",
                    reveal=placeholder,
                )
        except PlanError as error:
            at = re.split(r"[.:\[]", str(error), maxsplit=1)[0]
            problems.append(loaded.places.problem(("targets", name, at), str(error)))
    return problems


_PERSON = Person("Example", "example@example.com", "example")
_BRANCH = Push(
    repo="example/example", ref="refs/heads/main", before="1" * 40, after="2" * 40, author=_PERSON
)
_EXAMPLES: Mapping[On, Event] = {
    "push": _BRANCH,
    "tag": Push(
        repo="example/example", ref="refs/tags/v1", before=NO_COMMIT, after="2" * 40, created=True
    ),
    "delete": Push(
        repo="example/example", ref="refs/heads/old", before="1" * 40, after=NO_COMMIT, deleted=True
    ),
    "pull_request": PullRequest(
        repo="example/example",
        number=1,
        action="opened",
        head_sha="2" * 40,
        head_ref="topic",
        head_repo="example/example",
        base_ref="main",
        author=_PERSON,
    ),
}


def _compile(text: Text, where: str, *, in_url: bool = False) -> Template | SecretRef:
    return text if isinstance(text, SecretRef) else Template(text, where, in_url=in_url)


def _compile_all(texts: Mapping[str, Text], where: str) -> dict[str, Template | SecretRef]:
    return {key: _compile(text, f"{where}.{key}") for key, text in texts.items()}


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _leaves(item)
    else:
        yield value


def _compile_json(value: Any, where: str) -> Any:
    if isinstance(value, str):
        return Template(value, where)
    if isinstance(value, dict):
        return {key: _compile_json(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_compile_json(item, f"{where}[{n}]") for n, item in enumerate(value)]
    return value


def _render(text: Template | SecretRef, context: Mapping[str, Any], reveal: Reveal) -> str:
    return reveal(text) if isinstance(text, SecretRef) else text.render(context)


def _render_all(
    texts: Mapping[str, Template | SecretRef], context: Mapping[str, Any], reveal: Reveal
) -> dict[str, str]:
    """What renders to nothing is left out: a parameter without a value says nothing."""
    rendered = {key: _render(text, context, reveal) for key, text in texts.items()}
    return {key: value for key, value in rendered.items() if value}


def _render_json(value: Any, context: Mapping[str, Any], reveal: Reveal) -> Any:
    if isinstance(value, Template | SecretRef):
        return _render(value, context, reveal)
    if isinstance(value, dict):
        return {key: _render_json(item, context, reveal) for key, item in value.items()}
    if isinstance(value, list):
        return [_render_json(item, context, reveal) for item in value]
    return value


def _headers(inherited: Mapping[str, Text], own: Mapping[str, Text]) -> dict[str, Text]:
    """The preset's headers and the target's own, whose names compare without case."""
    names = {name.lower() for name in own}
    if len(names) < len(own):
        raise PlanError("headers: two names differ in nothing but case")
    return {name: text for name, text in inherited.items() if name.lower() not in names} | dict(own)


def _default_type(headers: dict[str, str], media_type: str) -> None:
    if not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = media_type


def _join(url: str, path: str, query: Mapping[str, str]) -> str:
    """Add a path and parameters to a URL whose own bytes stay as they are."""
    url, _, _ = url.partition("#")
    base, _, existing = url.partition("?")
    if path:
        base = f"{base.rstrip('/')}/{path.lstrip('/')}"
    kept = [pair for pair in existing.split("&") if pair and pair.partition("=")[0] not in query]
    added = [f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in query.items()]
    pairs = "&".join([*kept, *added])
    return f"{base}?{pairs}" if pairs else base
