"""The two little languages of patterns in relay.yaml, compiled to regular expressions.

Path patterns (repositories, branches, tags, changed files): ``*`` stays within one ``/`` segment,
``**`` crosses them, ``?`` is one character, ``[abc]`` one of a set, ``{a,b}`` one of several words.
Text patterns (authors, labels, commit messages): ``*`` is anything, ``?`` one character, and
everything else, brackets too, is meant literally.

In both, ``re:`` starts a regular expression instead, and a leading ``!`` excludes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

Flavour = Literal["path", "text"]


def compile_pattern(
    pattern: str, flavour: Flavour, *, ignore_case: bool = False
) -> re.Pattern[str]:
    """The regular expression of one pattern without its ``!``; use ``search`` with it.

    Globs are anchored at both ends, and so is ``re:`` for paths; ``re:`` for texts is searched.
    Raises ValueError with a sentence that says what is wrong.
    """
    if not pattern:
        raise ValueError("an empty pattern matches nothing; leave the key out to match everything")
    if pattern.startswith("re:"):
        source = pattern.removeprefix("re:")
        if flavour == "path":
            source = rf"\A(?:{source})\Z"
    else:
        source = rf"\A(?:{_path(pattern) if flavour == 'path' else _text(pattern)})\Z"
    try:
        return re.compile(source, re.IGNORECASE if ignore_case else 0)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error.msg}") from None


class PatternSet:
    """Patterns of one key of a route: a value matches any of them and none behind ``!``.

    With nothing but exclusions, everything else matches.
    """

    __slots__ = ("_exclude", "_include", "patterns")

    def __init__(
        self, patterns: Iterable[str], flavour: Flavour, *, ignore_case: bool = False
    ) -> None:
        self.patterns = tuple(patterns)

        def compiled(wanted: Callable[[str], bool]) -> Sequence[re.Pattern[str]]:
            return tuple(
                compile_pattern(pattern.removeprefix("!"), flavour, ignore_case=ignore_case)
                for pattern in self.patterns
                if wanted(pattern)
            )

        self._include = compiled(lambda pattern: not pattern.startswith("!"))
        self._exclude = compiled(lambda pattern: pattern.startswith("!"))

    @property
    def includes_anything(self) -> bool:
        """Whether it names what it wants, and not only what it excludes."""
        return bool(self._include)

    def excludes(self, value: str) -> bool:
        """Whether a pattern behind ``!`` matches."""
        return any(pattern.search(value) for pattern in self._exclude)

    def matches(self, value: str) -> bool:
        """Whether one value passes."""
        if self.excludes(value):
            return False
        return not self._include or any(pattern.search(value) for pattern in self._include)

    def __str__(self) -> str:
        return ", ".join(self.patterns)


def is_literal(pattern: str) -> bool:
    """Whether a path pattern can match only itself."""
    return not pattern.startswith(("re:", "!")) and not re.search(r"[*?\[\]{}]", pattern)


def _text(pattern: str) -> str:
    wild = {"*": "(?s:.*)", "?": "(?s:.)"}
    return "".join(wild.get(char) or re.escape(char) for char in pattern)


def _path(pattern: str) -> str:
    """Translate left to right; each branch consumes at least one character."""
    out: list[str] = []
    position = 0
    depth = 0
    while position < len(pattern):
        rest = pattern[position:]
        if rest.startswith("**/"):
            out.append("(?:[^/]+/)*")
            position += 3
        elif rest.startswith("**"):
            out.append("(?s:.*)")
            position += 2
        elif rest[0] == "*":
            out.append("[^/]*")
            position += 1
        elif rest[0] == "?":
            out.append("[^/]")
            position += 1
        elif rest[0] == "[":
            end = rest.find("]", 2)
            if end < 0:
                raise ValueError("'[' without a closing ']'")
            negated = rest[1] in "!^"
            members = rest[2 if negated else 1 : end]
            if not members:
                raise ValueError("'[]' names no character")
            escaped = re.sub(r"([\\\[\]^&~|])", r"\\\1", members)
            out.append(f"[{'^/' if negated else ''}{escaped}]")
            position += end + 1
        elif rest[0] == "{":
            depth += 1
            out.append("(?:")
            position += 1
        elif rest[0] == "}" and depth:
            depth -= 1
            out.append(")")
            position += 1
        elif rest[0] == "," and depth:
            out.append("|")
            position += 1
        else:
            out.append(re.escape(rest[0]))
            position += 1
    if depth:
        raise ValueError("'{' without a closing '}'")
    return "".join(out)
