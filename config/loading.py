"""Loads relay.yaml: models, names that refer to each other, presets and secrets.

Every mistake is reported at once, each with its place in the file and, for a misspelt name, what
was probably meant.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from config.collector import collector_paused
from config.errors import ConfigError, ConfigProblem
from config.model import RelayConfig, Route
from config.origin import Origin, Stamps, stamp
from config.positions import Places, read
from config.preset import presets
from config.secret_places import SECTIONS, Section, load_secrets, url_mistake
from config.wording import sentence


class Loaded(NamedTuple):
    """A valid relay.yaml, where its parts stand in the file, and which file it was."""

    config: RelayConfig
    places: Places
    origin: Origin


def load(
    path: Path,
    *,
    secrets_of: Collection[Section] = SECTIONS,
    environ: Mapping[str, str] = os.environ,
    stamps: Stamps | None = None,
) -> Loaded:
    """Read, check and complete a relay.yaml.

    ``secrets_of`` names the sections whose secrets this process needs; those of others are not
    looked up. ``stamps`` is given every file that is looked at, also where the file is refused.
    Raises ConfigError with every mistake.
    """
    with collector_paused():
        return _load(path, secrets_of, environ, {} if stamps is None else stamps)


def _load(
    path: Path, secrets_of: Collection[Section], environ: Mapping[str, str], stamps: Stamps
) -> Loaded:
    stamps[path] = stamp(path)
    document, places, problems, version = read(path)
    if not isinstance(document, dict):
        raise ConfigError([places.problem((), "the file must hold sources, targets and routes")])
    gathered = _gather_options(document, places, problems)
    try:
        config = RelayConfig.model_validate(gathered)
    except ValidationError as error:
        problems += _translate(error, gathered, places)
        problems += _check_the_rest(error, gathered, places, secrets_of, environ, stamps)
        raise ConfigError(_sorted(problems)) from None
    problems += _cross_check(config, places, range(len(config.routes)), {})
    problems += _check_notifiers(config, places, range(len(config.notify)), {})
    problems += load_secrets(config, places, secrets_of, environ, stamps)
    if problems:
        raise ConfigError(_sorted(problems))
    return Loaded(config, places, Origin(version, stamps))


def _check_the_rest(
    error: ValidationError,
    document: dict[Any, Any],
    places: Places,
    sections: Collection[Section],
    environ: Mapping[str, str],
    stamps: Stamps,
) -> list[ConfigProblem]:
    """What else is wrong, beyond the entries that pydantic has refused already."""
    broken = {issue["loc"][:2] for issue in error.errors(include_url=False)}
    kept: dict[Any, Any] = {}
    for section in ("sources", "targets"):
        entries = document.get(section)
        if not isinstance(entries, dict):
            return []
        kept[section] = {k: v for k, v in entries.items() if (section, k) not in broken}
    indexes: dict[str, list[int]] = {}
    for section in ("routes", "notify"):
        items = document.get(section, [])
        if not isinstance(items, list):
            return []
        whole = [index for index in range(len(items)) if (section, index) not in broken]
        indexes[section] = whole
        kept[section] = [items[index] for index in whole]
    if len(kept["notify"]) < len(document.get("notify", [])):
        # Without those that are refused already, the places of the others are not known.
        sections = [section for section in sections if section != "notify"]
    try:
        config = RelayConfig.model_validate(kept)
    except ValidationError:
        return []
    return [
        *_cross_check(config, places, indexes["routes"], document),
        *_check_notifiers(config, places, indexes["notify"], document),
        *load_secrets(config, places, sections, environ, stamps),
    ]


def _sorted(problems: Iterable[ConfigProblem]) -> list[ConfigProblem]:
    return sorted(problems, key=lambda problem: (problem.line, problem.column))


def suggest(word: object, known: Iterable[str]) -> str:
    """What was probably meant, as a question; empty if nothing comes close."""
    close = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else ""


def _gather_options(
    document: dict[Any, Any], places: Places, problems: list[ConfigProblem]
) -> dict[Any, Any]:
    """Move what a target's preset declares from beside its other keys to ``options``, and complete
    what a preset decides where its target does not."""
    targets = document.get("targets")
    if not isinstance(targets, dict):
        return document
    moved: dict[Any, Any] = {}
    for name, target in targets.items():
        preset = presets().get(str(target.get("preset"))) if isinstance(target, dict) else None
        if preset is None or "options" in target:
            moved[name] = target
            continue
        options = {
            key: option.default
            for key, option in preset.options.items()
            if option.default is not None
        }
        for key, option in preset.options.items():
            if key not in target:
                if option.required:
                    message = f"preset {preset.name} requires key {key!r}"
                    problems.append(places.problem(("targets", name), message))
            elif _fits(option.type, target[key]):
                options[key] = target[key]
            else:
                problems.append(
                    places.problem(("targets", name, key), f"must be {_WANTED[option.type]}")
                )
        rest = {key: value for key, value in target.items() if key not in preset.options}
        if rest.get("supersede") is None:
            rest["supersede"] = preset.supersede
        moved[name] = {**rest, **({"options": options} if options else {})}
    return {**document, "targets": moved}


_WANTED: Mapping[str, str] = {
    "boolean": "true or false",
    "integer": "a whole number",
    "secret": "{env: NAME} or {file: PATH}",
    "string": "text",
}


def _fits(kind: str, value: object) -> bool:
    match kind:
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "secret":
            return isinstance(value, dict)
        case _:
            return isinstance(value, str | int) and not isinstance(value, bool)


def _translate(
    error: ValidationError, document: dict[Any, Any], places: Places
) -> Iterator[ConfigProblem]:
    """Pydantic's findings in our words; of a value with several allowed forms only one finding."""
    seen: set[tuple[str | int, ...]] = set()
    for issue in error.errors(include_url=False):
        path = _existing(issue["loc"], document, missing=issue["type"] == "missing")
        if path in seen:
            continue
        seen.add(path)
        message, known = sentence(issue, path, document)
        word = path[-1] if issue["type"] == "extra_forbidden" else issue.get("input")
        yield places.problem(
            path, message, suggest(word, known), at_key=issue["type"] == "extra_forbidden"
        )


def _existing(loc: tuple[str | int, ...], document: Any, *, missing: bool) -> tuple[str | int, ...]:
    """The part of pydantic's location that is in the file: it adds words for forms and keys."""
    path: list[str | int] = []
    for part in loc:
        if part == "options":
            document = document.get("options", {}) if isinstance(document, dict) else {}
            continue
        try:
            document = document[part]
        except (KeyError, IndexError, TypeError):
            continue
        path.append(part)
    return tuple(path) if not missing else (*path, loc[-1])


def _cross_check(
    config: RelayConfig, places: Places, indexes: Sequence[int], document: Mapping[Any, Any]
) -> Iterator[ConfigProblem]:
    """Names that must exist. ``indexes`` are the routes' in the file; ``document`` knows of
    targets and sources that exist but are not valid."""
    targets = {*config.targets, *document.get("targets", ())}
    sources = {*config.sources, *document.get("sources", ())}
    if not sources:
        yield places.problem(("sources",), "must name at least one git server")
    for name, target in config.targets.items():
        if target.preset not in presets():
            yield places.problem(
                ("targets", name, "preset"),
                f"no preset {target.preset!r}; there are {', '.join(presets())}",
                suggest(target.preset, presets()),
            )
        if isinstance(target.url, str) and (wrong := url_mistake(target.url)):
            yield places.problem(("targets", name, "url"), wrong)
    names: dict[str, int] = {}
    for index, route in zip(indexes, config.routes, strict=True):
        if route.name in names:
            yield places.problem(
                ("routes", index, "name"),
                f"routes[{names[route.name]}] has this name already",
            )
        names.setdefault(route.name, index)
        at: tuple[str | int, ...] = ("routes", index)
        for position, source in enumerate(route.sources or ()):
            if source not in sources:
                yield places.problem(
                    (*at, "sources", position), f"no source {source!r}", suggest(source, sources)
                )
        for position, name in enumerate(route.deploy):
            if name not in targets:
                yield places.problem(
                    (*at, "deploy", position), f"no target {name!r}", suggest(name, targets)
                )
        yield from _check_route(config, places, at, route)


def _check_notifiers(
    config: RelayConfig, places: Places, indexes: Sequence[int], document: Mapping[Any, Any]
) -> Iterator[ConfigProblem]:
    """As ``_cross_check``, of the section notify."""
    targets = {*config.targets, *document.get("targets", ())}
    names: dict[str, int] = {}
    for index, notifier in zip(indexes, config.notify, strict=True):
        at: tuple[str | int, ...] = ("notify", index)
        if notifier.name in names:
            yield places.problem(
                (*at, "name"), f"notify[{names[notifier.name]}] has this name already"
            )
        names.setdefault(notifier.name, index)
        for position, name in enumerate(notifier.targets or ()):
            if name not in targets:
                yield places.problem(
                    (*at, "targets", position), f"no target {name!r}", suggest(name, targets)
                )
        if isinstance(notifier.url, str) and (wrong := url_mistake(notifier.url)):
            yield places.problem((*at, "url"), wrong)


def _check_route(
    config: RelayConfig, places: Places, at: tuple[str | int, ...], route: Route
) -> Iterator[ConfigProblem]:
    for position, name in enumerate(route.deploy):
        target = config.targets.get(name)
        place = (*at, "deploy", position)
        if target is not None and target.preset in presets():
            preset = presets()[target.preset]
            for kind in route.on:
                if kind not in preset.kinds:
                    yield places.problem(
                        place,
                        f"target {name!r} cannot deploy a {kind}: preset {preset.name} is for "
                        f"{', '.join(preset.kinds)}",
                    )
    for key, kinds in _CONCERNED.items():
        if key in route.model_fields_set and not kinds.intersection(route.on):
            yield places.problem(
                (*at, key),
                f"never applies: it concerns {' and '.join(sorted(kinds))}, but on is "
                f"{', '.join(route.on)}",
                at_key=True,
            )


_CONCERNED: Mapping[str, frozenset[str]] = {
    "branches": frozenset({"push", "pull_request", "delete"}),
    "base_branches": frozenset({"pull_request"}),
    "tags": frozenset({"tag", "delete"}),
    "paths": frozenset({"push", "tag", "pull_request"}),
    "actions": frozenset({"pull_request"}),
    "labels": frozenset({"pull_request"}),
    "messages": frozenset({"push", "tag"}),
    "forks": frozenset({"pull_request"}),
    "drafts": frozenset({"pull_request"}),
}
