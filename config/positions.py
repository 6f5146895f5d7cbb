"""YAML with positions: every value of a document, and where in the file it stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from config.errors import ConfigError, Problem

MAX_BYTES = 10 * 1024 * 1024
"""Bytes of a relay.yaml at most."""

Keys = Sequence[str | int]
"""Keys and indexes that lead to a value: ``("routes", 2, "branches")``."""


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Knows true, false, null and numbers. YAML 1.1 would read the key ``on`` as true."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|false|False", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?[0-9]+\.[0-9]+", "-+0123456789"),
    ("null", r"~|null|", ["~", "n", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )


class Places:
    """Where the keys and values of one file stand."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._values: dict[tuple[str | int, ...], tuple[int, int]] = {}
        self._keys: dict[tuple[str | int, ...], tuple[int, int]] = {}

    def note(self, path: tuple[str | int, ...], value: yaml.Node, key: yaml.Node | None) -> None:
        """Remember a value, and its key where it has one."""
        self._values[path] = _place(value)
        if key is not None:
            self._keys[path] = _place(key)

    def problem(
        self, path: Keys, message: str, suggestion: str = "", *, at_key: bool = False
    ) -> Problem:
        """A mistake at a path, or at the nearest place above it that the file has."""
        keys = tuple(path)
        known = keys
        while known and known not in self._values:
            known = known[:-1]
        marks = self._keys if at_key and known in self._keys else self._values
        line, column = marks.get(known, (0, 0))
        return Problem(self.file, line, column, render(keys), message, suggestion)


def render(path: Keys) -> str:
    """A path as people write it: ``routes[2].branches``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read(path: Path) -> tuple[Any, Places, list[Problem]]:
    """The document of a file, the places in it, and keys that stand twice.

    Raises ConfigError where there is no document to speak of.
    """
    places = Places(str(path))

    def refuse(message: str, line: int = 0, column: int = 0) -> ConfigError:
        return ConfigError([Problem(str(path), line, column, "", message)])

    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror or error}") from None
    except (UnicodeDecodeError, ValueError):
        raise refuse("is not UTF-8 text") from None
    if len(raw) > MAX_BYTES:
        raise refuse(f"is larger than {MAX_BYTES} bytes")
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise refuse("is empty")
        problems: list[Problem] = []
        _walk(root, (), places, problems, set())
        return loader.construct_document(root), places, problems
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
        raise refuse(f"not valid YAML: {error.problem or error.context}", line, column) from None
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise refuse(f"not valid YAML: {str(error).splitlines()[0]}") from None
    finally:
        loader.dispose()


def _walk(
    node: yaml.Node,
    path: tuple[str | int, ...],
    places: Places,
    problems: list[Problem],
    inside: set[int],
) -> None:
    if not path:
        places.note((), node, None)
    if id(node) in inside:
        raise yaml.YAMLError("an anchor contains itself")
    inside.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: a key must be a word")
            here = (*path, key.value)
            places.note(here, value, key)
            if key.value in seen and key.value != "<<":
                problems.append(
                    places.problem(here, f"key {key.value!r} stands here twice", at_key=True)
                )
            seen.add(key.value)
            _walk(value, here, places, problems, inside)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            places.note((*path, index), item, None)
            _walk(item, (*path, index), places, problems, inside)
    inside.discard(id(node))


def _place(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
