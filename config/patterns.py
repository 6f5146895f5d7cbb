"""The two little languages of patterns in relay.yaml, compiled to regular expressions.

Path patterns (repositories, branches, tags, changed files): ``*`` stays within one ``/`` segment,
``**`` crosses them, ``?`` is one character, ``[abc]`` one of a set, ``{a,b}`` one of several words.
Text patterns (authors, labels, commit messages): ``*`` is anything, ``?`` one character, and
everything else, brackets too, is meant literally.

In both, ``re:`` starts a regular expression instead, and a leading ``!`` excludes.

Whoever can push chooses the texts that globs are matched against, so no glob may backtrack without
bound. What stands between two wildcards is looked for once, leftmost first, in an atomic group:
the wildcard after it can stretch over anything that a later match would have skipped, so a first
match that leads nowhere proves that no other one does. ``{a,b}`` would break that proof and is
spelt out into whole patterns beforehand. Regular expressions are taken as the operator wrote them.
"""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Literal

Flavour = Literal["path", "text"]

_DEEP = "**"
_STAR = "*"
_MOST_ALTERNATIVES = 256
_DEEPEST_BRACES = 8


def check_pattern(pattern: str, flavour: Flavour) -> None:
    """Raise the ValueError of ``compile_pattern``, without its work where that cannot fail.

    Compiling the globs of ten thousand routes takes longer than all the rest of loading them.
    """
    if not pattern or pattern.startswith("re:"):
        compile_pattern(pattern, flavour)
    elif flavour == "path":
        _spell_out(pattern)


@functools.lru_cache(maxsize=65_536)
def compile_pattern(
    pattern: str, flavour: Flavour, *, ignore_case: bool = False
) -> re.Pattern[str]:
    """The regular expression of one pattern without its ``!``; use ``search`` with it.

    Globs are anchored at both ends, and so is ``re:`` for paths; ``re:`` for texts is searched.
    Raises ValueError with a sentence that says what is wrong.
    """
    if not pattern:
        raise ValueError("an empty pattern matches nothing; leave the key out to match everything")
    flags = re.IGNORECASE if ignore_case else re.NOFLAG
    if pattern.startswith("re:"):
        return _expression(pattern.removeprefix("re:"), flavour, flags)
    alternatives = _spell_out(pattern) if flavour == "path" else [_text_tokens(pattern)]
    globs = "|".join(_glob(tokens) for tokens in alternatives)
    return re.compile(rf"\A(?:{globs})\Z", flags)


class PatternSet:
    """Patterns of one key of a route: a value matches any of them and none behind ``!``.

    With nothing but exclusions, everything else matches. What is not a plain name is compiled when
    it is first needed. Raises ValueError as ``compile_pattern`` does.
    """

    __slots__ = ("_exclude", "_flags", "_include", "_names", "_wanted", "patterns")

    def __init__(
        self, patterns: Iterable[str], flavour: Flavour, *, ignore_case: bool = False
    ) -> None:
        self.patterns = tuple(patterns)
        self._flags: tuple[Flavour, bool] = flavour, ignore_case
        self._wanted = tuple(pattern for pattern in self.patterns if not pattern.startswith("!"))
        # Most patterns are plain names, and looking one up is cheaper than matching it.
        exact = flavour == "path" and not ignore_case
        self._names = frozenset(
            pattern for pattern in self._wanted if exact and is_literal(pattern)
        )
        self._include: Sequence[re.Pattern[str]] | None = None
        self._exclude = self._compiled(
            pattern.removeprefix("!") for pattern in self.patterns if pattern.startswith("!")
        )
        for pattern in self._wanted:
            check_pattern(pattern, flavour)

    def _compiled(self, patterns: Iterable[str]) -> Sequence[re.Pattern[str]]:
        flavour, ignore_case = self._flags
        return tuple(
            compile_pattern(pattern, flavour, ignore_case=ignore_case) for pattern in patterns
        )

    @property
    def includes_anything(self) -> bool:
        """Whether it names what it wants, and not only what it excludes."""
        return bool(self._wanted)

    def excludes(self, value: str) -> bool:
        """Whether a pattern behind ``!`` matches."""
        return bool(self._exclude) and any(pattern.search(value) for pattern in self._exclude)

    def matches(self, value: str) -> bool:
        """Whether one value passes."""
        if self.excludes(value):
            return False
        if value in self._names or not self._wanted:
            return True
        if self._include is None:
            globs = (pattern for pattern in self._wanted if pattern not in self._names)
            self._include = self._compiled(globs)
        return any(pattern.search(value) for pattern in self._include)

    def __str__(self) -> str:
        return ", ".join(self.patterns)


def is_literal(pattern: str) -> bool:
    """Whether a path pattern can match only itself."""
    return not pattern.startswith(("re:", "!")) and not re.search(r"[*?\[\]{}]", pattern)


def literal_part(pattern: str) -> str:
    """The longest text that stands in all that a path pattern matches; empty where none is known.
    The pattern has no ``!``."""
    if pattern.startswith("re:") or re.search(r"[\[{]", pattern):
        return ""
    # The slash behind ** may stand for nothing.
    return max(re.split(r"\*+/?|\?", pattern), key=len)


def _expression(source: str, flavour: Flavour, flags: int) -> re.Pattern[str]:
    """The operator's own regular expression, checked alone so that an anchor cannot mend it."""
    if not source:
        raise ValueError("nothing stands after 're:'")
    try:
        with warnings.catch_warnings():
            # Python warns of expressions whose meaning it may change one day ('[[').
            warnings.simplefilter("ignore", FutureWarning)
            found = re.compile(source, flags)
            if flavour == "text":
                return found
            leading = re.match(r"\(\?[aimsux]+\)", source)
            inline = leading[0] if leading else ""
            # The line feed ends a comment that a verbose expression may close with.
            end = "\n)" if found.flags & re.VERBOSE else ")"
            return re.compile(rf"{inline}\A(?:{source.removeprefix(inline)}{end}\Z", flags)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error.msg}") from None
    except OverflowError:
        raise ValueError("not a regular expression: a repetition is too large") from None
    except RecursionError:
        raise ValueError("not a regular expression: nested too deeply") from None


def _text_tokens(pattern: str) -> list[str]:
    wild = {"*": _DEEP, "?": "(?s:.)"}
    return [wild.get(char) or re.escape(char) for char in pattern]


def _spell_out(pattern: str) -> list[list[str]]:
    """The tokens of every pattern that the braces of a path pattern stand for."""
    open_braces: list[tuple[list[list[str]], list[list[str]]]] = []
    done: list[list[str]] = []
    current: list[list[str]] = [[]]
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if char == "{":
            if len(open_braces) == _DEEPEST_BRACES:
                raise ValueError(f"'{{' is nested more than {_DEEPEST_BRACES} levels deep")
            open_braces.append((current, done))
            current, done = [[]], []
            position += 1
        elif char == "," and open_braces:
            done.extend(current)
            current = [[]]
            position += 1
        elif char == "}" and open_braces:
            before, outer_done = open_braces.pop()
            words = [*done, *current]
            if len(before) * len(words) > _MOST_ALTERNATIVES:
                raise ValueError(f"braces stand for more than {_MOST_ALTERNATIVES} patterns")
            current = [[*start, *word] for start in before for word in words]
            done = outer_done
            position += 1
        else:
            token, position = _path_token(pattern, position)
            for alternative in current:
                alternative.append(token)
    if open_braces:
        raise ValueError("'{' without a closing '}'")
    return current


def _path_token(pattern: str, position: int) -> tuple[str, int]:
    """The token that starts at a position, and the position after it."""
    char = pattern[position]
    if pattern.startswith("**", position):
        return _DEEP, position + 2
    if char == "*":
        return _STAR, position + 1
    if char == "?":
        return "[^/]", position + 1
    if char == "[":
        return _character_set(pattern, position)
    return re.escape(char), position + 1


def _character_set(pattern: str, position: int) -> tuple[str, int]:
    negated = pattern[position + 1 : position + 2] in {"!", "^"}
    start = position + (2 if negated else 1)
    # A ']' that comes first is a member, as in a shell.
    end = pattern.find("]", start + 1)
    if end < 0:
        raise ValueError("'[' without a closing ']'")
    members: list[str] = []
    rest = pattern[start:end]
    while rest:
        if len(rest) > 2 and rest[1] == "-":
            if rest[0] > rest[2]:
                raise ValueError(f"the range '{rest[:3]}' runs backwards")
            members.append(f"{re.escape(rest[0])}-{re.escape(rest[2])}")
            rest = rest[3:]
        else:
            members.append(re.escape(rest[0]))
            rest = rest[1:]
    # A range such as '+-9' holds '/', which no set may match.
    return f"(?!/)[{'^' if negated else ''}{''.join(members)}]", end + 1


def _glob(tokens: Sequence[str]) -> str:
    """One glob without braces as a regular expression; the opening text says why it is safe."""
    wildcards = [""]
    groups: list[list[str]] = [[""]]
    position = 0
    while position < len(tokens):
        token = tokens[position]
        position += 1
        if token == _DEEP:
            whole_segments = tokens[position : position + 1] == ["/"] and (
                position == 1 or tokens[position - 2] == "/"
            )
            wildcards.append("(?:[^/]*/)*?" if whole_segments else "(?s:.*?)")
            groups.append([""])
            position += whole_segments
        elif token == _STAR:
            groups[-1].append("")
        else:
            groups[-1][-1] += token
    out: list[str] = []
    for wildcard, (first, *others) in zip(wildcards[:-1], groups[:-1], strict=True):
        out.append(f"(?>{wildcard}{first}{''.join(f'(?>[^/]*?{chunk})' for chunk in others)})")
    first, *others = groups[-1]
    out.append(wildcards[-1] + first)
    out.extend(f"(?>[^/]*?{chunk})" for chunk in others[:-1])
    out.extend(f"[^/]*{chunk}" for chunk in others[-1:])
    return "".join(out)
