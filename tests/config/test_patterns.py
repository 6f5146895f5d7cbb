"""The two languages of patterns: what matches, what is refused, and that nothing hangs."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.patterns import Flavour, PatternSet, check_pattern, compile_pattern, is_literal

GLOB = st.lists(
    st.sampled_from(["*", "**", "**/", "/", "?", "a", "b", "ab"]), min_size=1, max_size=8
)
PATH = st.text("ab/", max_size=12)


def matches(pattern: str, value: str, flavour: Flavour = "path") -> bool:
    return compile_pattern(pattern, flavour).search(value) is not None


def naive(pattern: str) -> re.Pattern[str]:
    """The same language, free to backtrack."""
    source = re.sub(
        r"(?<![^/])\*\*/|\*\*|\*|\?|[^*?]",
        lambda found: {
            "**/": "(?:[^/]*/)*",
            "**": "(?s:.*)",
            "*": "[^/]*",
            "?": "[^/]",
        }.get(found[0], re.escape(found[0])),
        pattern,
    )
    return re.compile(rf"\A{source}\Z")


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("acme/*", ["acme/web", "acme/"], ["acme/a/b", "acme", "xacme/web"]),
        ("**", ["", "a", "a/b/c"], []),
        ("apps/web/**", ["apps/web/a", "apps/web/a/b.ts"], ["apps/web", "apps/webs/a"]),
        ("**/*.md", ["README.md", "docs/a.md", "a/b/c.md"], ["a.mdx", "md"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb", "a/b/c"]),
        ("a**/b", ["a/b", "ax/b", "a/x/b"], ["ab", "b"]),
        ("**.py", ["a.py", "x/a.py"], ["a.pyc"]),
        ("*a*b", ["ab", "xaxb", "aab"], ["a/b", "b", "abc"]),
        ("**a*b", ["a/ab", "x/axb"], ["a/b"]),
        ("release/?.x", ["release/1.x"], ["release/12.x", "release//.x"]),
        ("v[0-9]*", ["v1", "v12.3"], ["va", "v"]),
        ("[!a]", ["b", "]"], ["a", "/", ""]),
        ("[^a]", ["b"], ["a", "/"]),
        ("[]a]", ["]", "a"], ["b", "[]a]"]),
        ("[!]a]", ["b"], ["]", "a", "/"]),
        ("[a-]", ["a", "-"], ["b"]),
        ("[&--]", ["&", "+", "-"], ["a", "/"]),
        ("[+-9]", ["+", "5"], ["/", "a"]),
        ("[\\]", ["\\"], ["a", "]"]),
        ("x[{,}]y", ["x{y", "x,y", "x}y"], ["xy"]),
        ("{main,release/*}", ["main", "release/1"], ["release/1/2", "other"]),
        ("a{b,{c,d}e}f", ["abf", "acef", "adef"], ["acf", "af"]),
        ("{**,x}/b", ["b", "a/b", "x/b"], ["ab"]),
        ("*{ab,a}*bc", ["abc"], ["ab"]),
        ("{a,}b", ["ab", "b"], ["aab"]),
        ("a}b,c", ["a}b,c"], ["ab"]),
        ("a.b+(c)", ["a.b+(c)"], ["aXb+(c)", "a.bb(c)"]),
        ("re:v[0-9]+", ["v1", "v12"], ["xv1", "v1x", "v"]),
        ("re:(?i)main", ["main", "MAIN"], ["mainx"]),
        ("re:a|b", ["a", "b"], ["ab", "ax"]),
        ("re:(?x) a b # why", ["ab"], ["a b"]),
    ],
)
def test_path_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [value for value in yes if not matches(pattern, value)] == []
    assert [value for value in no if matches(pattern, value)] == []


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("deploy*", ["deploy", "deploy/now\nplease"], ["redeploy"]),
        ("*[skip]*", ["x [skip] y", "[skip]"], ["s", "skip"]),
        ("{a,b}?", ["{a,b}!"], ["a!", "{a,b}"]),
        ("*@acme.com", ["me@acme.com", "a/b@acme.com"], ["me@acme.community"]),
        ("*ab*ab*c", ["ababc", "xabyabzc"], ["abc"]),
        ("re:^fix", ["fix: x"], ["a fix"]),
        ("re:(?i)hotfix", ["a HOTFIX now"], ["hot fix"]),
    ],
)
def test_text_patterns(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [value for value in yes if not matches(pattern, value, "text")] == []
    assert [value for value in no if matches(pattern, value, "text")] == []


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "an empty pattern matches nothing; leave the key out to match everything"),
        ("re:", "nothing stands after 're:'"),
        ("[a", "'[' without a closing ']'"),
        ("[]", "'[' without a closing ']'"),
        ("[!]", "'[' without a closing ']'"),
        ("[z-a]", "the range 'z-a' runs backwards"),
        ("{a,b", "'{' without a closing '}'"),
        ("{" * 9, "'{' is nested more than 8 levels deep"),
        ("{a,b}" * 9, "braces stand for more than 256 patterns"),
        ("re:(", "not a regular expression: missing ), unterminated subpattern"),
        ("re:a)|(?:b", "not a regular expression: unbalanced parenthesis"),
        ("re:a{99999999999}", "not a regular expression: a repetition is too large"),
        ("re:" + "(" * 5_000, "not a regular expression: nested too deeply"),
    ],
)
def test_what_is_not_a_pattern_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"\A{re.escape(message)}\Z"):
        compile_pattern(pattern, "path")


def test_case_is_ignored_on_request() -> None:
    assert compile_pattern("Acme/*", "path", ignore_case=True).search("aCME/web")
    assert compile_pattern("re:acme/.+", "path", ignore_case=True).search("ACME/web")
    assert not compile_pattern("Acme/*", "path").search("acme/web")


def test_an_expression_that_python_only_warns_of_is_accepted() -> None:
    assert matches("re:[[a]", "[")


@pytest.mark.parametrize(
    ("pattern", "flavour", "value"),
    [
        ("*a" * 30 + "b", "path", "a" * 4_000),
        ("*a" * 30 + "b", "text", "a" * 4_000),
        ("**a" * 30 + "b", "path", "a" * 4_000),
        ("**/a/" * 30 + "b", "path", "a/" * 2_000),
        ("{a*,*a}" * 4 + "b", "path", "a" * 1_000),
    ],
)
def test_a_hostile_name_does_not_hold_a_glob_up(pattern: str, flavour: Flavour, value: str) -> None:
    compiled = compile_pattern(pattern, flavour)
    start = time.process_time()

    assert compiled.search(value) is None

    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("patterns", "yes", "no"),
    [
        (["main", "release/*"], ["main", "release/1"], ["dev"]),
        (["**", "!**/*.md"], ["a.py"], ["a.md", "docs/a.md"]),
        (["!dev"], ["main"], ["dev"]),
        (["!main", "main"], [], ["main"]),
        (["!!a"], ["a", "b"], ["!a"]),
        (["!re:v.*"], ["main"], ["v1"]),
    ],
)
def test_pattern_sets(patterns: list[str], yes: list[str], no: list[str]) -> None:
    found = PatternSet(patterns, "path")

    assert [value for value in yes if not found.matches(value)] == []
    assert [value for value in no if found.matches(value)] == []
    assert str(found) == ", ".join(patterns)


def test_a_pattern_set_tells_its_halves_apart() -> None:
    assert PatternSet(["a", "!b"], "text").includes_anything
    assert not PatternSet(["!b"], "text").includes_anything
    assert PatternSet(["a", "!b"], "text").excludes("b")
    assert not PatternSet(["a", "!b"], "text").excludes("a")


@pytest.mark.parametrize("pattern", ["!", "a", "!["])
def test_a_pattern_set_refuses_what_is_behind_its_mark(pattern: str) -> None:
    if pattern == "a":
        assert PatternSet([pattern], "path").matches("a")
    else:
        with pytest.raises(ValueError, match=r"empty pattern|without a closing"):
            PatternSet([pattern], "path")


@pytest.mark.parametrize("pattern", ["a*", "a?", "[a]", "{a,b}", "re:a", "!a"])
def test_what_may_match_more_is_not_literal(pattern: str) -> None:
    assert not is_literal(pattern)
    assert is_literal("acme/web.site-1_2")


@given(st.text(min_size=1).filter(is_literal), st.text())
def test_a_literal_matches_itself_alone(pattern: str, other: str) -> None:
    assert matches(pattern, pattern)
    assert matches(pattern, other) == (pattern == other)


@given(st.text("ab/*?", min_size=1), st.text("ab/", min_size=1))
def test_one_star_never_crosses_a_slash(pattern: str, value: str) -> None:
    single = re.sub(r"\*+", "*", pattern)

    if matches(single, value):
        assert single.count("/") == value.count("/")


@given(GLOB.map("".join).filter(lambda glob: "***" not in glob), PATH)
def test_globs_match_what_free_backtracking_would_find(pattern: str, value: str) -> None:
    assert matches(pattern, value) == (naive(pattern).search(value) is not None)


@given(st.text("ab*?", min_size=1, max_size=8), st.text("ab/\n", max_size=10))
def test_text_globs_match_what_free_backtracking_would_find(pattern: str, value: str) -> None:
    free = "".join({"*": "(?s:.*)", "?": "(?s:.)"}.get(char, char) for char in pattern)

    assert matches(pattern, value, "text") == (re.fullmatch(free, value) is not None)


@given(
    st.text() | st.text("[]{}!^*?/-,a\\") | st.text("()[]{}?*+|\\^$#aim:0-9").map("re:".__add__),
    st.sampled_from(["path", "text"]),
)
def test_any_text_is_a_pattern_or_refused(pattern: str, flavour: Flavour) -> None:
    refusal = ""
    try:
        check_pattern(pattern, flavour)
    except ValueError as error:
        refusal = str(error)

    # What passes the check must not fail when the first event needs it.
    if refusal:
        with pytest.raises(ValueError, match=rf"\A{re.escape(refusal)}\Z"):
            compile_pattern(pattern, flavour)
    else:
        assert isinstance(compile_pattern(pattern, flavour), re.Pattern)
