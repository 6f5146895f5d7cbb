"""YAML with positions: every value of a document, and where in the file it stands."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from config.errors import ConfigError, ConfigProblem
from config.origin import version_of

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
    """Where the keys and values of one file stand. Looked up only for the sake of a mistake."""

    def __init__(self, file: str, root: yaml.Node) -> None:
        self.file = file
        self._root = root

    def problem(
        self, path: Keys, message: str, suggestion: str = "", *, at_key: bool = False
    ) -> ConfigProblem:
        """A mistake at a path, or at the nearest place above it that the file has."""
        key, value = None, self._root
        for part in path:
            step = _step(value, part)
            if step is None:
                break
            key, value = step
        else:
            value = key if at_key and key is not None else value
        return self.problem_at(value, path, message, suggestion)

    def problem_at(
        self, node: yaml.Node, path: Keys, message: str, suggestion: str = ""
    ) -> ConfigProblem:
        """A mistake at a node."""
        mark = node.start_mark
        return ConfigProblem(
            self.file, mark.line + 1, mark.column + 1, render(path), message, suggestion
        )


def _step(node: yaml.Node, part: str | int) -> tuple[yaml.Node | None, yaml.Node] | None:
    """The key, where there is one, and the value one step below a node."""
    if isinstance(node, yaml.MappingNode):
        # Of a key that stands twice, the last one counts.
        return next((step for step in reversed(node.value) if step[0].value == str(part)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    return None


def render(path: Keys) -> str:
    """A path as people write it: ``routes[2].branches``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def read(path: Path) -> tuple[Any, Places, list[ConfigProblem], str]:
    """The document of a file, the places in it, keys that stand twice, and the file's version.

    Raises ConfigError where there is no document to speak of.
    """

    def refuse(message: str, line: int = 0, column: int = 0) -> ConfigError:
        return ConfigError([ConfigProblem(str(path), line, column, "", message)])

    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        text = raw.decode("utf-8")
    except OSError as error:
        hint = ""
        if isinstance(error, FileNotFoundError):
            hint = ": create it, or name another one in RELAY_CONFIG"
        raise refuse(f"cannot be read: {error.strerror or error}{hint}") from None
    except (UnicodeDecodeError, ValueError):
        raise refuse("is not UTF-8 text") from None
    if len(raw) > MAX_BYTES:
        raise refuse(f"is larger than {MAX_BYTES} bytes")
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise refuse("is empty")
        places = Places(str(path), root)
        problems: list[ConfigProblem] = []
        _walk(root, (), places, problems, set())
        return loader.construct_document(root), places, problems, version_of(raw)
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
    problems: list[ConfigProblem],
    inside: set[int],
) -> None:
    if id(node) in inside:
        raise yaml.YAMLError("an anchor contains itself")
    inside.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: a key must be a word")
            here = (*path, key.value)
            if key.value in seen and key.value != "<<":
                problems.append(
                    places.problem_at(key, here, f"key {key.value!r} stands here twice")
                )
            seen.add(key.value)
            _walk(value, here, places, problems, inside)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, (*path, index), places, problems, inside)
    inside.discard(id(node))
