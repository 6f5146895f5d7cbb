"""What never leaves in clear: secrets, in the audit and in the diagnostics."""

from __future__ import annotations

import io
import json
import logging

import pytest
from pydantic import SecretStr

from config.settings import Settings
from relay import audit

SECRETS = ("plain-secret", 'pa"ss\\word', "line one\nline two", "geh\u00e4im")


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("style", ["json", "console"])
def test_secrets_are_masked(
    secret: str, style: audit.Style, audited: io.BytesIO, capfd: pytest.CaptureFixture[str]
) -> None:
    audit.configure(style=style, secrets=SECRETS, stream=audited)
    audit.log.info("step", value=f"<{secret}>", nested={"key": [secret], secret: 1})
    logging.getLogger("x").error("it says %s", secret)
    logging.getLogger("x").error("it says \ud800 %s", secret)
    told = audited.getvalue().decode() + capfd.readouterr().err

    assert told.count(audit.REDACTED) >= 5
    assert secret not in told
    assert json.dumps(secret)[1:-1] not in told
    assert repr(secret)[1:-1] not in told


def test_password_to_redis_is_a_secret() -> None:
    url = "redis://user:p%40ss%2Fword-long@localhost:6379/0"
    found = Settings(redis_url=SecretStr(url)).secret_values()

    assert found == {"p@ss/word-long", "p%40ss%2Fword-long"}
    assert Settings().secret_values() == frozenset()
