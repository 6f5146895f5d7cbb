"""A payload without its secrets: the same JSON but for them, however the sender has written it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.payloads import Pushes
from relay.audit import REDACTED, Redactor
from relay.errors import Malformed
from relay.receive.redact_payload import PayloadRedactor, redact_parsed
from tests.harness import GITHUB_SECRET, github_push

KNOWN = 'k"no/wn\\sé<cr>et\x7f'
PLACED = "not-known-by-value"
REDACT = Redactor([KNOWN])

T = "x://?" + "token" * 100_000 + "&token" * 50_000

Pair = tuple[Any, Any]
"""A value, and what it is to become."""


def hidden(value: Any) -> Any:
    """What stands below a key that says it is secret."""
    if isinstance(value, str):
        return REDACTED if value else ""
    if isinstance(value, list):
        return [hidden(each) for each in value]
    return {key: hidden(each) for key, each in value.items()} if isinstance(value, dict) else value


def joined(pairs: dict[str, Pair], secret: dict[str, Pair]) -> Pair:
    before = {key: pair[0] for key, pair in (pairs | secret).items()}
    after = {key: pair[1] for key, pair in pairs.items()}
    return before, after | {key: hidden(pair[0]) for key, pair in secret.items()}


plain = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="@"), max_size=8)
leaves = st.one_of(
    plain.map(lambda text: (text, text)),
    st.sampled_from(
        [None, True, 0, -7, 2**53, 10**30, 0.1, 1e22, "a@example.com", "git@x:a/b", "ssh://git@x/a"]
    ).map(lambda value: (value, value)),
    st.tuples(plain, plain).map(lambda ends: (KNOWN.join(ends), REDACTED.join(ends))),
    st.sampled_from([f"ab:{PLACED}", PLACED, f":{PLACED}", f"a:{PLACED}@{PLACED}"]).map(
        lambda who: (f"at https://{who}@x.example/a b", f"at https://{REDACTED}@x.example/a b")
    ),
)
names = st.sampled_from(["ref", "author", "keys_url", "key", "sha", "s\u00e9", "a/b", 'a"b'])
secretive = st.sampled_from(
    ["secret", "Secret_Token", "db-password", "private_key", "apiKey", "AUTHORIZATION"]
)
values: st.SearchStrategy[Pair] = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(
            lambda pairs: ([one for one, _ in pairs], [other for _, other in pairs])
        ),
        st.builds(joined, st.dictionaries(names, inner), st.dictionaries(secretive, inner)),
    ),
    max_leaves=20,
)
bodies = st.builds(joined, st.dictionaries(names, values), st.dictionaries(secretive, values))


def escaped(value: Any) -> str:
    """JSON in which every character of every text is escaped."""
    if isinstance(value, str):
        units = value.encode("utf-16-be")
        return '"' + "".join(f"\\u{units[n : n + 2].hex()}" for n in range(0, len(units), 2)) + '"'
    if isinstance(value, dict):
        pairs = (f"{escaped(key)} : {escaped(each)}" for key, each in value.items())
        return "{" + " ,\n".join(pairs) + "}"
    return f"[{','.join(map(escaped, value))}]" if isinstance(value, list) else json.dumps(value)


WRITERS: list[Callable[[Any], str]] = [
    json.dumps,
    lambda value: json.dumps(value, ensure_ascii=False, indent=1),
    lambda value: json.dumps(value).replace("/", "\\/"),
    escaped,
]


@pytest.mark.slow
@given(bodies, st.sampled_from(WRITERS))
def test_all_stays_as_it_was_but_for_what_is_secret(
    pair: Pair, write: Callable[[Any], str]
) -> None:
    before, after = pair

    text = redact_parsed(write(before).encode(), REDACT)

    assert json.loads(text) == after
    for secret in (PLACED, KNOWN, json.dumps(KNOWN)[1:-1]):
        assert secret not in text.decode()


def test_the_webhooks_own_secret_of_gogs_is_redact_parsed() -> None:
    body = b'{"secret": "abc", "ref": "refs/heads/main", "hook": {"config": {"\\u0073ecret": "x"}}}'

    assert json.loads(redact_parsed(body, Redactor())) == {
        "secret": REDACTED,
        "ref": "refs/heads/main",
        "hook": {"config": {"secret": REDACTED}},
    }


def test_a_known_secret_in_the_name_of_a_key_is_redact_parsed() -> None:
    assert redact_parsed(json.dumps({KNOWN: 1}).encode(), REDACT) == b'{"****":1}'


def test_what_is_no_text_is_kept_readable() -> None:
    assert redact_parsed(b'{"a":"\xff\xfe","b":1}', REDACT) == '{"a":"\ufffd\ufffd","b":1}'.encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"a":',
        b'{"a":1e400}',
        b'{"a":"\\ud83d"}',
        b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        # Deep enough to be read, too deep to be looked through for a secret that is in it.
        b'{"a":' + b"[" * 700 + json.dumps(KNOWN).encode() + b"]" * 700 + b"}",
    ],
)
def test_what_cannot_be_looked_through_is_malformed(body: bytes) -> None:
    with pytest.raises(Malformed):
        redact_parsed(body, REDACT)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://x.example/a?jwt=abc.d-e", "https://x.example/a?jwt=****"),
        ("x://x/a?b=1&private_token=ab&c=2#d e=f", "x://x/a?b=1&private_token=****&c=2#d e=f"),
        ("https://x.example/?Access_Token=a=b%20c&x", "https://x.example/?Access_Token=****&x"),
        ("https://x.example/?token=&ref=main", "https://x.example/?token=&ref=main"),
        ("https://u:p@x.example/?secret=abc", "https://****@x.example/?secret=****"),
        ("is token=abc it? a=b", "is token=abc it? a=b"),
    ],
)
def test_what_a_url_passes_as_a_secret_is_redact_parsed(text: str, shown: str) -> None:
    body = json.dumps({"avatar_url": text, "list": [text]}).encode()

    assert json.loads(redact_parsed(body, Redactor())) == {"avatar_url": shown, "list": [shown]}


@pytest.mark.parametrize(
    "text", ["a://" * 200_000, "://" + "@" * 800_000, "secre" * 200_000, T, T + "="]
)
def test_a_text_made_to_take_long_does_not(text: str) -> None:
    # Anything but linear would take hours and meet the test's own limit of time.
    assert REDACTED.encode() in redact_parsed(
        json.dumps({"secret": "x", text: f"{text}@"}).encode(), REDACT
    )


words = st.sampled_from(
    [
        "secret",
        "ToKen",
        "api_key",
        "pa\u017f\u017fword",
        "pwd",
        "coo\u212aie",
        "\u0130",
        "jwt",
        "ref",
    ]
)
urls = st.builds(
    "{}://{}x.example/{}".format,
    st.sampled_from(["https", "ssh", "x"]),
    st.sampled_from(
        ["", "u:p@", "git@", "GIT@", "git:x@", "gi@", "g@", "gitx@", 'a"b@', "\n@", "&@"]
    ),
    st.sampled_from(["", "?a=1&token=abc", "?b=2&c", "a@b", "?ref=a&jwt=b"]),
)
texts = st.one_of(
    plain,
    words,
    urls,
    st.just(KNOWN),
    st.just("plain-secret"),
    st.lists(st.sampled_from(["a@b", "&", "<", "\\", "/", '"', "\u00e9", KNOWN, "/u0026"])).map(
        "".join
    ),
)
trees: st.SearchStrategy[Any] = st.recursive(
    st.one_of(texts, st.integers(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(words, texts), inner, max_size=3)
    ),
    max_leaves=12,
)


def as_go_writes(value: Any) -> str:
    """https://pkg.go.dev/encoding/json#HTMLEscape"""
    text = json.dumps(value, ensure_ascii=False)
    for sign in "&<>":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def escape_some(text: str, numbers: set[int]) -> str:
    """Escape some characters within the texts of a JSON document."""
    made, in_text = [], False
    for number, sign in enumerate(re.findall(r"\\u[0-9a-f]{4}|\\.|.", text, re.DOTALL)):
        if sign == '"':
            in_text = not in_text
        elif in_text and number in numbers and len(sign) == 1 and sign <= "\uffff":
            sign = f"\\u{ord(sign):04x}"
        made.append(sign)
    return "".join(made)


@pytest.mark.parametrize(
    "known", [[], ["plain-secret"], [KNOWN], ["a&b"], ["plain-secret", "\u00e9", "x\\u0026"]]
)
@settings(max_examples=400)
@given(
    # What is alone shows most: another secret would have the body parsed anyway.
    st.one_of(
        st.builds(lambda key, text: {key: text}, st.one_of(words, texts), texts),
        st.builds(lambda text: {"a": text}, st.one_of(urls, texts)),
        st.dictionaries(st.one_of(words, texts), trees, max_size=4),
    ),
    st.sampled_from([*WRITERS, as_go_writes]),
    st.sets(st.integers(0, 120), max_size=4),
)
def test_the_first_pass_keeps_nothing_that_the_second_would_redact(
    known: list[str], value: Any, write: Callable[[Any], str], escapes: set[int]
) -> None:
    redact = Redactor(known)
    text = write(value)
    body = (text if write is escaped else escape_some(text, escapes)).encode()
    assert json.loads(body) == value

    if PayloadRedactor(redact).is_clean(body):
        assert json.loads(redact_parsed(body, redact)) == value


SECRETIVE = (
    *("secret", "token", "passw", "passphrase", "pwd", "credential", "authorization", "cookie"),
    *("private_key", "api-key", "accesskey", "signing_key", "a jwt"),
)
NOT_ASCII = [chr(code) for code in range(0x80, 0x11_0000) if re.fullmatch("[a-z]", chr(code), re.I)]
"""What IGNORECASE takes for an ASCII letter."""


@pytest.mark.parametrize("word", SECRETIVE)
def test_the_first_pass_knows_each_word_however_it_is_written(word: str) -> None:
    redactor = PayloadRedactor(Redactor())
    written = [word, word.upper(), word.title()]
    for place, letter in enumerate(word):
        others = [other for other in NOT_ASCII if re.fullmatch(letter, other, re.I)]
        written += [word[:place] + other + word[place + 1 :] for other in others]

    for name in written:
        for is_ascii in (False, True):
            body = json.dumps({name: "x"}, ensure_ascii=is_ascii).encode()
            assert json.loads(redact_parsed(body, Redactor())) == {name: REDACTED}
            assert not redactor.is_clean(body)


def test_an_ordinary_push_is_not_parsed() -> None:
    redactor = PayloadRedactor(Redactor([GITHUB_SECRET, KNOWN]))

    assert redactor.is_clean(github_push())
    assert redactor.is_clean(next(Pushes(8).bodies(1)))
    assert redactor.is_clean(b'{"ssh_url": "ssh://git@x.example:2222/a/b", "email": "a@b.c"}')


def test_a_secret_that_is_new_is_looked_for() -> None:
    redact = Redactor()
    redactor = PayloadRedactor(redact)
    body = b'{"a": "fresh-secretive-value"}'.replace(b"secretive", b"s3cr3t1ve")
    assert redactor.redact(body) == body

    redact.exchange(["fresh-s3cr3t1ve-value"])

    assert redactor.redact(body) == b'{"a":"****"}'


def test_too_many_secrets_for_one_pattern_are_found_all_the_same() -> None:
    known = [f"{number}-{'x' * 5_000}" for number in range(3_000)]
    redactor = PayloadRedactor(Redactor(known))

    assert redactor.redact(json.dumps({"a": known[-1]}).encode()) == b'{"a":"****"}'
