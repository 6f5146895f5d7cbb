"""Puts pydantic's findings about relay.yaml into words of the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from config.hours import Hours
from config.model import (
    Notifier,
    RelayConfig,
    Route,
    SecretRef,
    Source,
    Target,
)
from config.policies import ApprovalPolicy, Breaker, Debounce, RetryPolicy, Success
from config.positions import Keys
from config.preset import presets

_TYPES: Mapping[str, str] = {
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "float_type": "must be a number of seconds or a duration such as 10s",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "path_type": "must be a path",
}

_PARTS: Mapping[Any, type[Any]] = {
    "approval": ApprovalPolicy,
    "breaker": Breaker,
    "debounce": Debounce,
    "hours": Hours,
    "retry": RetryPolicy,
    "success": Success,
}
"""Keys of a target that have keys of their own."""


def sentence(issue: ErrorDetails, path: Keys, document: Any) -> tuple[str, Iterable[str]]:
    """What is wrong, and the names that might have been meant instead."""
    kind, context = issue["type"], issue.get("ctx", {})
    match kind:
        case "extra_forbidden":
            return f"unknown key {path[-1]!r}", _known_keys(path, document)
        case "missing":
            return f"required key {path[-1]!r} is missing", ()
        case "literal_error":
            words = [word.strip(" '") for word in _literals(str(context.get("expected", "")))]
            return f"{issue['input']!r} is not one of {', '.join(words)}", words
        case "value_error":
            return str(context.get("error", issue["msg"])), ()
        case "string_pattern_mismatch":
            return f"{issue['input']!r} is no name: letters, digits, single - and _ between", ()
        case "too_short":
            return "must not be empty", ()
        case _ if kind in _TYPES:
            return _TYPES[kind], ()
        case _:
            return issue["msg"][:1].lower() + issue["msg"][1:], ()


def _literals(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")


def _known_keys(path: Keys, document: Any) -> list[str]:
    """The keys that may stand where an unknown one was found."""
    parent = tuple(path[:-1])
    model: type[Any]
    if len(parent) == 3 and parent[0] == "targets" and parent[2] in _PARTS:
        model = _PARTS[parent[2]]
    elif len(parent) == 0:
        model = RelayConfig
    elif len(parent) == 2 and parent[0] == "sources":
        model = Source
    elif len(parent) == 2 and parent[0] == "routes":
        model = Route
    elif len(parent) == 2 and parent[0] == "notify":
        model = Notifier
    elif len(parent) == 2 and parent[0] == "targets":
        preset = presets().get(str(document["targets"][parent[1]].get("preset")))
        options = list(preset.options) if preset else []
        return [*_keys(Target), *options]
    else:
        model = SecretRef
    return _keys(model)


def _keys(model: type[Any]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items() if name != "options"]
