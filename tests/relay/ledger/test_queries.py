"""Every named query is valid SQL, and code and .sql files know the same names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import relay
from relay.ledger.queries import growing_queries, named_queries
from relay.ledger.sqlite import FILE, _statements_by_name, connect

ROOT = Path(relay.__file__).parent.parent

_WORD = re.compile(r"\"([a-z][a-z0-9_]*)\"")

_FORMAT = re.compile(r"f\"([a-z_{}.]*\{[a-z_.]+\}[a-z_{}.]*)\"")

_FIELD = re.compile(r"\{[^}]+\}")

_CALL = re.compile(r"\.(?:rows|row|run|insert|run_many)\(\s*\"([a-z][a-z0-9_]*)\"")

_PARAM = re.compile(r":([a-z][a-z0-9_]*)")

_SQL = re.compile(r"\b(SELECT .* FROM|INSERT INTO|UPDATE \w+ SET|DELETE FROM)\b")


def sources() -> dict[Path, str]:
    files = [*(ROOT / "relay").rglob("*.py"), *(ROOT / "workers").rglob("*.py")]
    return {file: file.read_text(encoding="utf-8") for file in files}


@pytest.mark.parametrize("name", sorted(named_queries()))
def test_each_query_prepares(name: str, folder: Path) -> None:
    text = named_queries()[name]
    connection = connect(folder / FILE)
    params = dict.fromkeys(_PARAM.findall(text), 1)
    connection.execute(f"EXPLAIN {text}", params).fetchall()
    connection.close()


def test_parameters_by_number_are_those_by_name() -> None:
    for name, text in named_queries().items():
        names = dict.fromkeys(_PARAM.findall(text))
        statement = _statements_by_name()[name]
        assert list(statement.values({one: one for one in names})) == list(names)
        assert set(re.findall(r"\?([0-9]+)", statement.sql)) == {
            str(number + 1) for number in range(len(names))
        }


def test_each_query_is_used_and_each_that_is_used_exists() -> None:
    texts = sources().values()
    called = {name for text in texts for name in _CALL.findall(text)}
    assert called <= named_queries().keys()
    words = {word for text in texts for word in _WORD.findall(text)}
    formats = {form for text in texts for form in _FORMAT.findall(text)}
    patterns = [
        re.compile(_FIELD.sub("[a-z]+", form))
        for form in formats
        if len(_FIELD.sub("", form)) >= len("_of_")
    ]
    unused = [
        name
        for name in named_queries().keys() - words
        if not any(pattern.fullmatch(name) for pattern in patterns)
    ]
    assert unused == []


def test_sql_stands_in_no_other_place() -> None:
    allowed = {ROOT / "relay/ledger/queries.py"}
    found = [file for file, text in sources().items() if _SQL.search(text)]
    assert [file for file in found if file not in allowed] == []


def test_the_generation_counts_what_must_not_be_forgotten() -> None:
    assert growing_queries() >= {"insert_delivery", "insert_deploy", "insert_attempt"}
    assert not growing_queries() & {"insert_delivery_text", "insert_rate_call", "take_duty"}
