"""URLs of Redis: what is understood, what is refused, and that no password is ever quoted."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from config.errors import ConfigError
from config.redis_url import NoRedisUrl, Sentinels, parse, passwords
from config.settings import Settings, load_settings

SECRET = "hunter2-and-more"

HOSTS = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
PORTS = st.integers(1, 65_535)
WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(
    addresses=st.lists(st.tuples(HOSTS, PORTS), min_size=1, max_size=16),
    service=st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True),
    db=st.integers(0, 99_999),
    user=WORDS,
    password=WORDS,
    sentinel=st.tuples(WORDS, WORDS),
)
def test_what_is_written_is_read(
    addresses: list[tuple[str, int]],
    service: str,
    db: int,
    user: str,
    password: str,
    sentinel: tuple[str, str],
) -> None:
    hosts = ",".join(f"{host}:{port}" for host, port in addresses)
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    theirs, secret = (quote(word, safe="") for word in sentinel)
    url = (
        f"redis+sentinel://{login}@{hosts}/{service}/{db}"
        f"?sentinel_user={theirs}&sentinel_password={secret}"
    )
    assert parse(url) == Sentinels(
        addresses=tuple(addresses),
        service=service,
        options={"username": user, "password": password, "db": db},
        sentinel_options={"username": sentinel[0], "password": sentinel[1]},
    )
    assert {password, quote(password, safe=""), sentinel[1], secret} == passwords(url)


@given(st.text(max_size=80), st.sampled_from(["redis", "rediss"]))
def test_anything_else_is_refused(rest: str, scheme: str) -> None:
    url = f"{scheme}+sentinel://{rest}"
    try:
        parsed = parse(url)
    except NoRedisUrl:
        return
    assert isinstance(parsed, Sentinels)
    assert 0 < len(parsed.addresses) <= 16
    assert all(host and 0 < port < 65_536 for host, port in parsed.addresses)


def test_defaults() -> None:
    assert parse("redis+sentinel://:pw@a,[::1]:7/main") == Sentinels(
        (("a", 26_379), ("::1", 7)), "main", {"password": "pw", "db": 0}, {}
    )


def test_tls_is_for_sentinels_too() -> None:
    tls = {"ssl": True, "ssl_ca_certs": "/ca.pem", "ssl_check_hostname": False}
    query = "ssl_ca_certs=/ca.pem&ssl_check_hostname=no&sentinel_password=p%2Bw"
    assert parse(f"rediss+sentinel://a/main?{query}") == Sentinels(
        (("a", 26_379),), "main", {"db": 0, **tls}, {"password": "p+w", **tls}
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"redis+sentinel://u:{SECRET}@/main", "not redis+sentinel://"),
        (f"redis+sentinel://u:{SECRET}@a:1", "not redis+sentinel://"),
        (f"redis+sentinel://u:{SECRET}/x@a:1/main", "not redis+sentinel://"),
        (f"redis+sentinel://u:{SECRET}@a:1/main/first", "not redis+sentinel://"),
        (f"redis+sentinel://u:{SECRET}@a:1\n/main", "a sentinel is not host:port"),
        (f"redis+sentinel://u:{SECRET}@a:70000/main", "a sentinel is not host:port"),
        (f"redis+sentinel://u:{SECRET}@a:1,,b/main", "a sentinel is not host:port"),
        (f"redis+sentinel://u:{SECRET}@{'a,' * 16}a/main", "more than 16 sentinels"),
        (f"redis+sentinel://a/main?password={SECRET}", "an unknown option"),
        (f"redis+sentinel://a/main?ssl_ca_certs={SECRET}", "an unknown option"),
        (f"redis+sentinel://a/main?{SECRET}", "what follows the ?"),
        (
            f"redis+sentinel://a/main?sentinel_user=a&sentinel_user={SECRET}",
            "an option stands there twice",
        ),
        (f"http://u:{SECRET}@a/0", "not a redis://, rediss://, unix:// or redis+sentinel:// URL"),
        (f"redis://u:{SECRET}@a:port/0", "not a redis://"),
    ],
)
def test_refused_and_not_quoted(url: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_REDIS_URL", url)
    with pytest.raises(ConfigError) as refused:
        load_settings()
    assert str(refused.value).startswith("environment: RELAY_REDIS_URL: " + why)
    assert SECRET not in str(refused.value)
    assert SECRET not in repr(refused.value)


def test_passwords_are_secrets_of_the_settings() -> None:
    url = "redis+sentinel://u:p%40ss-word@a/main?sentinel_password=other%2Fword"
    settings = Settings(redis_url=SecretStr(url))

    assert settings.secret_values() == {"p@ss-word", "p%40ss-word", "other/word", "other%2Fword"}
    assert "ss-word" not in repr(settings)
