"""Secrets do not stay in texts that are kept; everything else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raywf.core.redact import redact, secrets_of


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("s3://AKIA123:wJalr%2FXUtn@bucket/raywf/jobs/1.json", "s3://AKIA123:***@bucket/raywf/jobs/1.json"),
        ("postgresql://u:p%40ss@db:5432/mlflow", "postgresql://u:***@db:5432/mlflow"),
        ("GET /x?user=a&password=hunter22&b=1", "GET /x?user=a&password=***&b=1"),
        ("authorization: Bearer abcdef0123456789", "authorization: Bearer ***"),
        ("{'Authorization': 'Bearer abcdef0123456789'}", "{'Authorization': 'Bearer ***'}"),
    ],
)
def test_what_is_secret_by_its_form(text: str, kept: str) -> None:
    """Passwords in addresses and queries, and bearers' tokens."""
    assert redact(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:8265 answers",
        "trial lightgbm-3 done 0.8123",
        "version 3: promoted; secret sauce, token 17 of 20",
        "file:///mnt/raywf/snapshots/a@b:c",
    ],
)
def test_what_is_not_secret_stays(text: str) -> None:
    """Addresses without a password, and words."""
    assert redact(text) == text


def test_the_environment_s_secrets_are_known_by_their_names() -> None:
    """Not the paths of files that hold one, nor values so short that they are words."""
    environ = {
        "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI",
        "DB_PASSWORD": "wJalrXUtnFEMI/longer",
        "RAY_AUTH_TOKEN_PATH": "/home/ray/.ray/auth_token",
        "TOKENIZERS": "false",
        "HOME": "/home/ray",
    }
    assert secrets_of(environ) == ("wJalrXUtnFEMI/longer", "wJalrXUtnFEMI")
    assert redact("with wJalrXUtnFEMI/longer and HOME=/home/ray", secrets_of(environ)) == (
        "with *** and HOME=/home/ray"
    )


@given(st.text(max_size=60), st.lists(st.text(min_size=8, max_size=12), max_size=3))
def test_twice_is_once(text: str, secrets: list[str]) -> None:
    """What is hidden stays hidden, and no secret is left."""
    secrets = [secret for secret in secrets if "*" not in secret]
    once = redact(text, secrets)
    assert redact(once, secrets) == once
    assert not any(secret in once for secret in secrets)
