"""A payload without its secrets: the same JSON but for them, however the sender has written it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.audit import MASK, Redactor
from relay.errors import Malformed
from relay.receive.redact_payload import redact_parsed

KNOWN = 'k"no/wn\\sé<cr>et\x7f'
PLACED = "not-known-by-value"
REDACT = Redactor([KNOWN])

T = "x://?" + "token" * 100_000 + "&token" * 50_000

Pair = tuple[Any, Any]
"""A value, and what it is to become."""


def hidden(value: Any) -> Any:
    """What stands below a key that says it is secret."""
    if isinstance(value, str):
        return MASK if value else ""
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
    st.tuples(plain, plain).map(lambda ends: (KNOWN.join(ends), MASK.join(ends))),
    st.sampled_from([f"ab:{PLACED}", PLACED, f":{PLACED}", f"a:{PLACED}@{PLACED}"]).map(
        lambda who: (f"at https://{who}@x.example/a b", f"at https://{MASK}@x.example/a b")
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
        "secret": MASK,
        "ref": "refs/heads/main",
        "hook": {"config": {"secret": MASK}},
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
    assert MASK.encode() in redact_parsed(
        json.dumps({"secret": "x", text: f"{text}@"}).encode(), REDACT
    )
