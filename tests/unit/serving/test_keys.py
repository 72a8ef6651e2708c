"""Who may call: keys, tokens, scopes, rates, and what is kept of them."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from conftest import Client, make_workflow
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from raywf.core.audit import Audit
from raywf.core.clock import FixedClock
from raywf.core.errors import SettingsError
from raywf.core.journal import Journal
from raywf.core.rollout import Rollouts
from raywf.core.serving_settings import OidcSettings, ServingSettings
from raywf.serving.app import Endpoint
from raywf.serving.guard import Guard
from raywf.serving.keys import Caller, KeyBook, Scope
from raywf.serving.requests import RequestError
from raywf.serving.tokens import TokenReader
from raywf.testing import SMALL_ROW, FolderSource

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ALL: tuple[Scope, ...] = ("predict", "outcomes", "admin")
BODY = {"features": dict(SMALL_ROW)}


def book(tmp_path: Path) -> KeyBook:
    return KeyBook(str(tmp_path / "root"), "w")


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def status(guard: Guard, token: str | None, scope: Scope | None) -> int:
    """Return how a call is answered: 200 where it is allowed."""
    try:
        guard.check(None if token is None else f"Bearer {token}", scope)
    except RequestError as err:
        return err.status
    return 200


def test_only_a_hash_is_kept(tmp_path: Path) -> None:
    """Neither the secret nor a part of it is in any file."""
    token = book(tmp_path).add(Caller(name="shop", scopes=("predict",)), now=NOW)
    stored = b"".join(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())
    assert token.encode() not in stored
    assert token[4:16].encode() not in stored
    assert len(token) > 40


@pytest.mark.parametrize(("scopes", "scope"), [((s,), t) for s in ALL for t in (*ALL, None)])
def test_a_key_is_for_its_scopes(tmp_path: Path, scopes: tuple[Scope, ...], scope: Scope | None) -> None:
    """It opens what it was made for, and what any key opens."""
    token = book(tmp_path).add(Caller(name="shop", scopes=scopes), now=NOW)
    guard = Guard(book(tmp_path), FixedClock(NOW), may_be_open=True)
    assert status(guard, token, scope) == (200 if scope is None or scope in scopes else 403)


def test_open_until_the_first_key_and_never_again(tmp_path: Path) -> None:
    """With the first key calls need one, without a restart; with the last one gone none is allowed."""
    guard = Guard(book(tmp_path), FixedClock(NOW), may_be_open=True)
    assert status(guard, None, "predict") == 200
    token = book(tmp_path).add(Caller(name="a", scopes=ALL), now=NOW)
    guard.refresh()
    assert (status(guard, None, "predict"), status(guard, token, "predict")) == (401, 200)
    book(tmp_path).remove("a")
    guard.refresh()
    assert (status(guard, None, "predict"), status(guard, token, "predict")) == (401, 401)


def test_closed_from_the_start(tmp_path: Path) -> None:
    """Where others than this machine could call, no file of keys lets nobody in: it may not be mounted."""
    assert status(Guard(book(tmp_path), FixedClock(NOW), may_be_open=False), None, "predict") == 401
    assert ServingSettings().may_be_open
    assert ServingSettings(host="0.0.0.0", open_to_all=True).may_be_open
    assert not ServingSettings(host="0.0.0.0").may_be_open


def test_rotation(tmp_path: Path) -> None:
    """Two keys are good side by side, then only the new one."""
    keys = book(tmp_path)
    old = keys.add(Caller(name="old", scopes=ALL), now=NOW)
    guard = Guard(keys, FixedClock(NOW), may_be_open=True)
    new = keys.add(Caller(name="new", scopes=ALL), now=NOW)
    guard.refresh()
    assert [status(guard, token, "predict") for token in (old, new)] == [200, 200]
    keys.remove("old")
    guard.refresh()
    assert [status(guard, token, "predict") for token in (old, new)] == [401, 200]


def test_an_expired_key_is_refused(tmp_path: Path) -> None:
    """From its last instant on."""
    until = NOW + timedelta(days=90)
    token = book(tmp_path).add(Caller(name="a", scopes=ALL, expires=until), now=NOW)
    before, after = (
        Guard(book(tmp_path), FixedClock(t), may_be_open=True)
        for t in (until - timedelta(microseconds=1), until)
    )
    assert (status(before, token, "predict"), status(after, token, "predict")) == (200, 401)


def test_rate(tmp_path: Path) -> None:
    """Ten a second are five on each of two replicas: at once, then as time passes; others do not feel it."""
    keys, moment = book(tmp_path), [100.0]
    busy = keys.add(Caller(name="busy", scopes=ALL, rate=10), now=NOW)
    calm = keys.add(Caller(name="calm", scopes=ALL), now=NOW)
    guard = Guard(keys, FixedClock(NOW), may_be_open=True, share=0.5, monotonic=lambda: moment[0])
    assert [status(guard, busy, None) for _ in range(7)] == [200] * 5 + [429] * 2
    moment[0] += 0.4
    assert [status(guard, busy, None) for _ in range(3)] == [200, 200, 429]
    assert status(guard, calm, None) == 200
    with pytest.raises(RequestError) as caught:
        guard.check(f"Bearer {busy}", None)
    assert caught.value.headers == {"retry-after": "1"}


def test_a_damaged_file_keeps_what_was_known(tmp_path: Path) -> None:
    """Who had a key keeps it; a replica that starts then lets nobody in."""
    keys = book(tmp_path)
    token = keys.add(Caller(name="a", scopes=ALL), now=NOW)
    guard = Guard(keys, FixedClock(NOW), may_be_open=True)
    (tmp_path / "root/keys/w.json").write_text('{"keys": [{"nam')
    guard.refresh()
    assert (status(guard, token, None), status(guard, None, None)) == (200, 401)
    assert status(Guard(keys, FixedClock(NOW), may_be_open=True), None, None) == 401
    with pytest.raises(SettingsError, match="does not hold API keys"):
        keys.read()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Bearer ",
        "Basic dTpw",
        "bearer x",
        "Bearer rwf_",
        "Bearer " + "x" * 100_000,
        "Bearer \xff",
    ],
)
def test_odd_headers(tmp_path: Path, header: str) -> None:
    """Each is refused as a missing key is."""
    book(tmp_path).add(Caller(name="a", scopes=ALL), now=NOW)
    with pytest.raises(RequestError) as caught:
        Guard(book(tmp_path), FixedClock(NOW), may_be_open=True).check(header, None)
    assert (caught.value.status, caught.value.headers) == (401, {"www-authenticate": "Bearer"})


@pytest.mark.parametrize(
    ("caller", "reason"),
    [
        (Caller(name="a", scopes=ALL), "there is a key 'a' already"),
        (Caller(name="", scopes=ALL), "needs a name"),
        (Caller(name="b", scopes=()), "needs a scope"),
    ],
)
def test_wrong_keys(tmp_path: Path, caller: Caller, reason: str) -> None:
    """A name is taken once; a key is for something."""
    book(tmp_path).add(Caller(name="a", scopes=ALL), now=NOW)
    with pytest.raises(SettingsError, match=reason):
        book(tmp_path).add(caller, now=NOW)
    with pytest.raises(SettingsError, match="no key 'aa'; did you mean 'a'"):
        book(tmp_path).remove("aa")


@pytest.fixture
def closed(tmp_path: Path, source: FolderSource) -> tuple[Client, dict[str, str]]:
    """An endpoint with a key for each scope."""
    tokens = {scope: book(tmp_path).add(Caller(name=scope, scopes=(scope,)), now=NOW) for scope in ALL}
    return Client(Endpoint(make_workflow(tmp_path / "root"), source)), tokens


def test_the_endpoint_asks_for_keys(closed: tuple[Client, dict[str, str]], tmp_path: Path) -> None:
    """Each path has its scope; only the health check is open; nothing of a refused call is logged."""
    client, tokens = closed
    paths = {
        ("POST", "/v1/predict"): {"predict"},
        ("POST", "/v1/outcomes"): {"outcomes"},
        ("POST", "/v1/retrain"): {"admin"},
        ("POST", "/v1/rollouts"): {"admin"},
        ("GET", "/v1/rollouts"): set(ALL),
        ("GET", "/v1/model"): set(ALL),
        ("GET", "/openapi.json"): set(ALL),
        ("GET", "/healthz"): {*ALL, "nobody"},
    }
    for (method, path), allowed in paths.items():
        for who in (*ALL, "nobody"):
            headers = bearer(tokens[who]) if who in tokens else {}
            answer = client.request(method, path, headers=headers, content=b"{")
            refused = answer.status_code in {401, 403}
            assert refused == (who not in allowed), (path, who, answer.text)
            assert answer.headers.get("www-authenticate") == ("Bearer" if answer.status_code == 401 else None)
    assert client.post("/v1/predict", json=BODY, headers=bearer(tokens["predict"])).status_code == 200
    assert not list((tmp_path / "root").rglob("audit/*"))


def test_thousands_of_refusals_log_no_secret(
    closed: tuple[Client, dict[str, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without, with a wrong and with an under-scoped key: refused, and not a word of it anywhere."""
    client, tokens = closed
    headers = [{}, bearer("rwf_" + "z" * 43), bearer(tokens["outcomes"])]
    with caplog.at_level(logging.DEBUG):
        found = [
            client.post("/v1/predict", json=BODY, headers=headers[i % 3]).status_code for i in range(600)
        ]
    assert found == [401, 401, 403] * 200
    stored = b"".join(p.read_bytes() for p in (tmp_path / "root").rglob("*") if p.is_file())
    for secret in ("z" * 43, *tokens.values()):
        assert secret not in caplog.text
        assert secret.encode() not in stored


def test_a_retraining_is_asked_for_and_kept(closed: tuple[Client, dict[str, str]], tmp_path: Path) -> None:
    """The journal has the request, the audit who asked; faults in the body are named."""
    client, tokens = closed
    send = {"headers": bearer(tokens["admin"])}
    answer = client.post("/v1/retrain", json={"reason": "prices rose"}, **send)
    assert answer.status_code == 202
    root = str(tmp_path / "root")
    assert Journal(root, "w").requests() == {answer.json()["request"]: "prices rose"}
    (act,) = Audit(root, "w").acts()
    assert (act.who, act.by, act.what, act.facts["reason"]) == ("admin", "http", "retrain", "prices rose")
    assert client.post("/v1/retrain", **send).status_code == 202
    for content, status_code in ((b"{", 400), (b"[]", 422), (b'{"why": 1}', 422), (b'{"reason": ""}', 422)):
        assert client.post("/v1/retrain", content=content, **send).status_code == status_code


def test_the_same_id_asks_for_one_retraining(closed: tuple[Client, dict[str, str]], tmp_path: Path) -> None:
    """Who got no answer may send it again; both acts are in the audit."""
    client, tokens = closed
    root, send = str(tmp_path / "root"), {"headers": bearer(tokens["admin"])}
    body = {"id": "load-2024-07-01", "reason": "a new load"}
    asked = [client.post("/v1/retrain", json=body, **send) for _ in range(2)]
    assert [answer.status_code for answer in asked] == [202, 202]
    assert asked[0].json() == asked[1].json()
    assert Journal(root, "w").requests() == {asked[0].json()["request"]: "a new load"}
    assert [act.facts["id"] for act in Audit(root, "w").acts()] == ["load-2024-07-01"] * 2
    assert client.post("/v1/retrain", json={"id": "b"}, **send).json() != asked[0].json()
    for bad in ("", "x" * 201, 7, None):
        assert client.post("/v1/retrain", json={"id": bad}, **send).status_code == 422


def test_a_rollout_is_paused_and_aborted_over_http(
    closed: tuple[Client, dict[str, str]], tmp_path: Path
) -> None:
    """Each act is a step with its caller, kept in the audit; without a rollout there is nothing to do."""
    client, tokens = closed
    root, send = str(tmp_path / "root"), {"headers": bearer(tokens["admin"])}
    assert client.post("/v1/rollouts", json={"act": "pause"}, **send).status_code == 409
    Rollouts(root, "w").start("shadow", champion="9", challengers=("2",), share=0, time=NOW)
    assert client.post("/v1/rollouts", json={"act": "pause"}, **send).json()["paused"]
    assert client.post("/v1/rollouts", json={"act": "pause"}, **send).status_code == 409
    assert client.post("/v1/rollouts", json={"act": "abort"}, **send).json()["stage"] == "aborted"
    assert client.post("/v1/rollouts", json={"act": "resume"}, **send).status_code == 409
    steps = client.request("GET", "/v1/rollouts", headers=bearer(tokens["predict"])).json()["steps"]
    assert [(s["stage"], s["reasons"]) for s in steps[1:]] == [
        ("shadow", ["pause by admin"]),
        ("aborted", ["abort by admin"]),
    ]
    acts = [act.what.removeprefix("rollout ") for act in Audit(root, "w").acts()]
    assert acts == ["pause", "pause", "abort"]  # noted before it is tried, so the second one too
    for body in ({}, {"act": "promote"}, [], {"act": "pause", "x": 1}):
        assert client.post("/v1/rollouts", json=body, **send).status_code == 422


def test_admin_needs_a_key_even_where_nothing_else_does(client: Client) -> None:
    """A page in the browser of who runs an open endpoint cannot ask for retrainings."""
    answer = client.post("/v1/retrain", json={"reason": "x"})
    assert (answer.status_code, "raywf keys add" in answer.json()["error"]) == (403, True)


def test_the_document_names_the_keys(closed: tuple[Client, dict[str, str]], client: Client) -> None:
    """Security schemes and refusals are there where calls need a key."""
    closed_client, tokens = closed
    found = closed_client.request("GET", "/openapi.json", headers=bearer(tokens["admin"])).json()
    assert found["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}
    assert {"401", "403", "429"} <= set(found["paths"]["/v1/predict"]["post"]["responses"])
    assert "security" not in found["paths"]["/healthz"]["get"]


class Provider:
    """An OpenID provider on loopback: a discovery document and its public keys; `asked` are the paths."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.asked: list[str] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                body = json.dumps(provider.answer(self.path)).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.issuer = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, path: str) -> Any:
        if path.endswith("openid-configuration"):
            return {"jwks_uri": f"{self.issuer}/keys"}
        kinds = {"RSA": jwt.algorithms.RSAAlgorithm, "EC": jwt.algorithms.ECAlgorithm}
        found = []
        for name, key in self.keys.items():
            kind = "RSA" if isinstance(key, rsa.RSAPrivateKey) else "EC"
            found.append(json.loads(kinds[kind].to_jwk(key.public_key())) | {"kid": name})
        return {"keys": found}

    def token(self, name: str, **claims: Any) -> str:
        key = self.keys[name]
        given = {
            "iss": self.issuer,
            "aud": "raywf",
            "sub": "ann",
            "exp": time.time() + 600,
            "scope": "openid raywf:predict raywf:admin",
        } | claims
        given = {k: v for k, v in given.items() if v is not None}
        algorithm = "RS256" if isinstance(key, rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(given, key, algorithm, headers={"kid": name})


@pytest.fixture
def provider() -> Iterator[Provider]:
    """A provider with one RSA key and one on an elliptic curve."""
    made = Provider()
    made.keys["r"] = rsa.generate_private_key(65537, 2048)
    made.keys["e"] = ec.generate_private_key(ec.SECP256R1())
    yield made
    made.server.shutdown()


def reader(provider: Provider, moment: list[float]) -> TokenReader:
    settings = OidcSettings(issuer=provider.issuer, audience="raywf", scope_prefix="raywf:")
    made = TokenReader(settings, monotonic=lambda: moment[0])
    made.refresh()
    return made


def test_tokens_of_a_provider(provider: Provider) -> None:
    """A good token names its caller and scopes, for either kind of key."""
    tokens = reader(provider, [0.0])
    for name in ("r", "e"):
        found = tokens.read(provider.token(name))
        assert found is not None
        assert (found.name, found.scopes) == ("ann", ("predict", "admin"))


def test_tokens_that_are_not_right(provider: Provider) -> None:
    """Another issuer, audience or key, too old, unsigned, or signed with the public key as a secret."""
    tokens = reader(provider, [0.0])
    other = Provider()
    other.keys["r"] = rsa.generate_private_key(65537, 2048)
    forged = jwt.encode(
        {"iss": provider.issuer, "aud": "raywf", "exp": time.time() + 600, "scope": "raywf:admin"},
        other.keys["r"],
        "RS256",
        headers={"kid": "r"},
    )
    claims = {"iss": provider.issuer, "aud": "raywf", "exp": time.time() + 600}
    unsigned = jwt.encode(claims, None, "none", headers={"kid": "r"})
    secret = jwt.encode(claims, "the public key, known to all, as an HMAC's", "HS256", headers={"kid": "r"})
    wrong = [
        provider.token("r", iss="https://other"),
        provider.token("r", aud="shop"),
        provider.token("r", exp=time.time() - 60),
        provider.token("r", exp=None),
        provider.token("r", nbf=time.time() + 600),
        forged,
        unsigned,
        secret,
        "a.b.c",
        "",
        "x" * 50_000,
    ]
    assert [tokens.read(token) for token in wrong] == [None] * len(wrong)
    other.server.shutdown()


def test_a_new_key_of_the_provider(provider: Provider) -> None:
    """It is fetched once a token names it, but not at the pace of whoever sends nonsense."""
    moment = [0.0]
    tokens = reader(provider, moment)
    provider.keys["new"] = ec.generate_private_key(ec.SECP256R1())
    token, asked = provider.token("new"), len(provider.asked)
    for _ in range(50):
        assert tokens.read(token) is None
        tokens.refresh()
    assert len(provider.asked) == asked
    moment[0] += 20
    tokens.refresh()
    assert tokens.read(token) is not None


def test_tokens_and_keys_side_by_side(provider: Provider, tmp_path: Path, source: FolderSource) -> None:
    """With a provider named, calls need a key or a token, though there is no key yet."""
    oidc = OidcSettings(issuer=provider.issuer, audience="raywf", scope_prefix="raywf:")
    client = Client(Endpoint(make_workflow(tmp_path / "root", oidc=oidc), source))
    assert client.post("/v1/predict", json=BODY).status_code == 401
    token = provider.token("r", scope="raywf:predict")
    for _ in range(2):
        assert client.post("/v1/predict", json=BODY, headers=bearer(token)).status_code == 200
    assert client.post("/v1/outcomes", json={}, headers=bearer(token)).status_code == 403
