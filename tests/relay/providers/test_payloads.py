"""What the payloads of all providers share, hostile bodies, and bodies that real servers sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from relay.errors import Malformed
from relay.events.event import (
    MAX_FILES,
    MAX_FILES_LENGTH,
    MAX_MESSAGE,
    Event,
    Ignored,
    Person,
    PullRequest,
    Push,
)
from relay.providers import PROVIDERS
from relay.providers.detect import event_header
from relay.providers.payloads import (
    FORM,
    Author,
    Commit,
    changed_files,
    decode,
    head_message,
    is_no_commit,
    person,
    unwrap,
)
from relay.samples import sample

REAL = Path(__file__).parents[4] / "shared" / "payloads"

EVENTS = [
    *(("github", event) for event in ("push", "pull_request")),
    *(("gitlab", f"{event} Hook") for event in ("Push", "Tag Push", "Merge Request", "System")),
    *(
        (provider, event)
        for provider in ("gitea", "forgejo", "gogs")
        for event in ("push", "delete", "pull_request")
    ),
]
every_event = pytest.mark.parametrize(("provider", "event"), EVENTS)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=9,
)


def parse(provider: str, event: str, body: bytes, content_type: str = "") -> Event | Ignored:
    headers = CIMultiDict(event_header(provider, b"", event) | {"Content-Type": content_type})
    return PROVIDERS[provider](["secret"]).parse(headers, body)


def outcome(provider: str, event: str, body: bytes, content_type: str = "") -> str:
    """``malformed`` or the class of the answer; any other exception fails the test."""
    try:
        parsed = parse(provider, event, body, content_type)
    except Malformed:
        return "malformed"
    assert isinstance(parsed, Push | PullRequest | Ignored)
    return type(parsed).__name__


def sample_of(provider: str, event: str) -> dict[str, Any]:
    if event == "delete":
        return {"ref": "main", "ref_type": "branch", "repository": {"full_name": "acme/web"}}
    kinds = {"Tag Push Hook": "tag", "Merge Request Hook": "pull_request"}
    return sample(provider, "pull_request" if event == "pull_request" else kinds.get(event, "push"))


def paths_in(fields: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Where each value inside a payload is."""
    inner: list[tuple[str | int, Any]] = []
    if isinstance(fields, dict):
        inner = list(fields.items())
    elif isinstance(fields, list):
        inner = list(enumerate(fields))
    return [path, *(found for key, value in inner for found in paths_in(value, (*path, key)))]


@every_event
@given(body=st.binary(max_size=100))
def test_any_bytes_are_an_answer_or_malformed(provider: str, event: str, body: bytes) -> None:
    outcome(provider, event, body)
    outcome(provider, event, body, FORM)
    outcome(provider, event, b"payload=" + quote(body).encode(), FORM)


@every_event
@given(value=JSON)
def test_any_json_is_an_answer_or_malformed(provider: str, event: str, value: Any) -> None:
    outcome(provider, event, json.dumps(value).encode())


@every_event
@given(data=st.data(), value=JSON)
def test_any_value_in_the_place_of_another(
    provider: str, event: str, data: st.DataObject, value: Any
) -> None:
    fields = sample_of(provider, event)
    assert outcome(provider, event, json.dumps(fields).encode()) in ("Push", "PullRequest")
    *way, last = data.draw(st.sampled_from(paths_in(fields)[1:]))
    place: Any = fields
    for key in way:
        place = place[key]
    place[last] = value
    outcome(provider, event, json.dumps(fields).encode())


@every_event
@pytest.mark.parametrize(
    "value",
    [
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 100_000,
        b"NaN",
        b"-Infinity",
        b'"\\ud800"',
        b"'a'",
        b"",
        b"1,",
    ],
    ids=lambda value: ascii(value[:12]) + str(len(value)),
)
def test_what_is_not_json_is_malformed_at_any_depth(
    provider: str, event: str, value: bytes
) -> None:
    assert outcome(provider, event, value) == "malformed"
    fields = msgspec.json.encode(sample_of(provider, event))
    assert outcome(provider, event, b'{"unread": ' + value + b", " + fields[1:]) == "malformed"
    assert outcome(provider, event, fields) in ("Push", "PullRequest")


@every_event
@pytest.mark.parametrize("text", [b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"'], ids=ascii)
def test_invalid_utf8_is_malformed_where_it_is_read(provider: str, event: str, text: bytes) -> None:
    repository = (
        b'"project": {"path_with_namespace": '
        if provider == "gitlab"
        else b'"repository": {"full_name": '
    )
    fields = msgspec.json.encode(sample_of(provider, event))[1:]
    assert outcome(provider, event, b"{" + repository + b'"a/b"}, ' + fields) != "malformed"
    assert outcome(provider, event, b"{" + repository + text + b"}, " + fields) == "malformed"
    outcome(provider, event, b'{"unread": ' + text + b", " + fields)


@every_event
@pytest.mark.parametrize("value", ["null", "[]", "7", '"text"', "true"])
def test_json_that_is_no_object_is_malformed(provider: str, event: str, value: str) -> None:
    assert outcome(provider, event, value.encode()) == "malformed"


def test_the_reason_names_the_field() -> None:
    with pytest.raises(Malformed, match="after"):
        parse("github", "push", b'{"ref": "refs/heads/main", "before": "a"}')
    decoder = msgspec.json.Decoder(Commit)
    assert decode(decoder, b'{"id": "a", "unknown": 1}') == Commit(id="a")
    with pytest.raises(Malformed, match="not JSON"):
        decode(decoder, b"{")


@pytest.mark.parametrize("content_type", [FORM, f"{FORM}; charset=utf-8", FORM.upper()])
def test_a_form_holds_its_payload_in_one_field(content_type: str) -> None:
    assert unwrap(content_type, b"payload=%7B%22a%22%3A+1%7D&other=b") == b'{"a": 1}'


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"other=a",
        b"payload=",
        b"payload=a&payload=b",
        b"payload=\xff",
        b"payload=a" + b"&other=a" * 16,
    ],
)
def test_other_forms_are_malformed(body: bytes) -> None:
    with pytest.raises(Malformed, match="payload"):
        unwrap(FORM, body)


@pytest.mark.parametrize("content_type", ["application/json", "", "text/plain"])
def test_other_bodies_are_left_alone(content_type: str) -> None:
    assert unwrap(content_type, b"payload=a") == b"payload=a"


def test_no_commit_is_all_zeros() -> None:
    assert is_no_commit("0" * 40)
    assert is_no_commit("0" * 64)
    assert not is_no_commit("0" * 39 + "1")


def test_a_person_is_as_much_as_is_told() -> None:
    assert person(None) == Person()
    assert person(Author(name="Ada", username="ada")) == Person(name="Ada", login="ada")
    assert person(Author(email="ada@example.com")) == Person(email="ada@example.com")


def test_changed_files_are_named_in_order() -> None:
    first = Commit(added=["b"], modified=["a"], removed=[])
    second = Commit(added=[], modified=["b"], removed=["c"])
    assert changed_files([first, second]) == (("b", "a", "b", "c"), True)
    assert changed_files([]) == ((), True)
    assert changed_files([first, Commit(added=["d"])]) == (("b", "a", "d"), False)


def test_changed_files_are_cut() -> None:
    paths = [str(n) for n in range(MAX_FILES + 1)]
    whole, complete = changed_files([Commit(added=paths[:-1], modified=[], removed=[])])
    assert (len(whole), complete) == (MAX_FILES, True)
    cut, complete = changed_files([Commit(added=paths, modified=[], removed=[])])
    assert (cut, complete) == (tuple(paths[:-1]), False)
    often, complete = changed_files([Commit(added=["a", "b"], modified=[], removed=[])] * MAX_FILES)
    assert (often, complete) == (("a", "b"), True)


def test_changed_files_are_cut_by_length_too() -> None:
    paths = [f"{n:04}" + "x" * 996 for n in range(300)]
    cut, complete = changed_files([Commit(added=paths, modified=[], removed=[])])
    assert (cut, complete) == (tuple(paths[:262]), False)
    one, complete = changed_files([Commit(added=["x" * (MAX_FILES_LENGTH + 1)], modified=[])])
    assert (one, complete) == ((), False)


@pytest.mark.parametrize("provider", ["github", "gitlab", "gitea", "forgejo", "gogs"])
def test_files_that_nobody_asks_for_stay_unread(provider: str) -> None:
    body = json.dumps(sample(provider, "push", repo="acme/web", branch="main", sha="")).encode()
    source = PROVIDERS[provider](["secret"])
    headers = event_header(provider, body, None)
    asked: list[str] = []

    def nobody(repo: str) -> bool:
        asked.append(repo)
        return False

    unread = source.parse(headers, body, nobody)
    read = source.parse(headers, body, lambda _: True)

    assert isinstance(read, Push)
    assert read.files
    assert unread == msgspec.structs.replace(read, files=(), files_complete=False)
    assert asked == ["acme/web"]


def test_the_message_is_cut() -> None:
    assert head_message(Commit(message="m" * (MAX_MESSAGE + 1))) == "m" * MAX_MESSAGE
    assert head_message(Commit()) == ""
    assert head_message(None) == ""


def real() -> list[Any]:
    """Every stored body with the event its place tells."""
    hooks = {
        "push-event": "Push Hook",
        "tag-event": "Tag Push Hook",
        "merge-request-event": "Merge Request Hook",
        "pipeline-event": "Pipeline Hook",
    }
    found = [("github", path.parent.name, path) for path in REAL.glob("github/*/*.json")]
    found += [
        ("gitlab", hooks.get(path.stem, path.stem), path) for path in REAL.glob("gitlab/*.json")
    ]
    found += [
        ("gitea", path.stem.removesuffix("-event").replace("-", "_"), path)
        for path in REAL.glob("gitea/*.json")
    ]
    rows = [
        pytest.param(*row, id=str(row[2].relative_to(REAL)))
        for row in sorted(found, key=lambda row: row[2])
    ]
    for provider in sorted({"github", "gitlab", "gitea"} - {row[0] for row in found}):
        reason = f"no payloads of {provider} in shared/payloads beside the project"
        skip = pytest.mark.skip(reason=reason)
        rows.append(pytest.param(provider, "push", REAL, marks=skip, id=provider))
    return rows


def sent_id(provider: str, fields: Any) -> str:
    """The repository's id in a body, wherever the body has it."""
    if provider != "gitlab":
        return str(fields["repository"].get("id", ""))
    places = (
        fields.get("project", {}).get("id"),
        fields.get("project_id"),
        fields.get("object_attributes", {}).get("target_project_id"),
    )
    return str(next((place for place in places if place is not None), ""))


@pytest.mark.parametrize(("provider", "event", "path"), real())
def test_real_payloads_are_understood(provider: str, event: str, path: Path) -> None:
    body = path.read_bytes()
    parsed = parse(provider, event, body)
    kinds = {
        "push": ("push", "tag", "delete"),
        "Push Hook": ("push", "delete"),
        "Tag Push Hook": ("tag", "delete"),
        "pull_request": ("pull_request",),
        "Merge Request Hook": ("pull_request",),
    }
    if event in ("push", "Push Hook", "Tag Push Hook"):
        assert isinstance(parsed, Push)
    if isinstance(parsed, Ignored):
        assert parsed.reason
        return
    assert parsed.kind in kinds[event]
    assert "/" in parsed.repo
    assert parsed.ref.startswith("refs/")
    assert len(parsed.sha) in (40, 64)
    assert parsed.repo_id == sent_id(provider, json.loads(body))
    if provider == "github" or isinstance(parsed, PullRequest):
        assert parsed.changed_at
    if isinstance(parsed, Push):
        assert parsed.own_clock == (provider == "github")
        assert parsed.before_told or provider == "gitea"


@pytest.mark.parametrize(("provider", "event", "path"), real())
def test_real_payloads_are_recognised_without_their_headers(
    provider: str, event: str, path: Path
) -> None:
    body = path.read_bytes()
    headers = CIMultiDict(event_header(provider, body, None))
    recognised = PROVIDERS[provider](["secret"]).parse(headers, body)
    parsed = parse(provider, event, body)
    assert isinstance(recognised, Ignored) == isinstance(parsed, Ignored)
    if not isinstance(parsed, Ignored):
        assert recognised == parsed
