"""JWTs as an identity provider signs them: real keys, real tokens, a real HTTPS server."""

from __future__ import annotations

import asyncio
import base64
import http.server
import json
import re
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from pydantic import ValidationError

from deployments import installing
from deployments.access.callers import Caller, Callers
from deployments.access.keys import hash_of, new_token
from deployments.access.watched_file import WrongFileError
from deployments.pipeline.errors import NotReady, Unauthorized
from deployments.settings import AccessSettings

ISSUER, AUDIENCE = "https://login.example.com", "rayclassify"
RSA = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
EC = ec.generate_private_key(ec.SECP256R1())
OTHER = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def jwks(*kids: str) -> str:
    public = {
        "rsa": jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key(), as_dict=True),
        "ec": jwt.algorithms.ECAlgorithm.to_jwk(EC.public_key(), as_dict=True),
    }
    return json.dumps({"keys": [{**public[kid], "kid": kid, "use": "sig"} for kid in kids]})


def signed(key: Any = RSA, algorithm: str = "RS256", kid: str = "rsa", **claims: Any) -> bytes:
    now = int(time.time())
    payload = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now + 300, "scope": "classify",
    } | claims  # fmt: skip
    payload = {name: value for name, value in payload.items() if value is not None}
    return jwt.encode(payload, key, algorithm=algorithm, headers={"kid": kid}).encode()


def settings(place: Path | str, **changes: Any) -> AccessSettings:
    return AccessSettings(jwt_jwks=str(place), jwt_issuer=ISSUER, jwt_audience=AUDIENCE, **changes)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(jwks("rsa", "ec"))
    return path


def identify(callers: Callers, token: bytes) -> Caller:
    return asyncio.run(callers.identify(token))


@pytest.mark.parametrize(("key", "algorithm", "kid"), [(RSA, "RS256", "rsa"), (EC, "ES256", "ec")])
def test_a_signed_token_names_its_caller(file, key, algorithm, kid):
    callers = Callers(settings(file, texts_per_day=5))
    for _ in range(2):  # verified, then remembered
        caller = identify(callers, signed(key, algorithm, kid))
        assert (caller.id, caller.scopes) == ("jwt:alice", {"classify"})
        assert caller.allowance.rates.texts_per_day == 5


@pytest.mark.parametrize(
    ("claim", "scopes"),
    [
        ({"scope": "openid classify explain"}, {"classify", "explain"}),
        ({"scope": ["classify", "root"]}, {"classify"}),
        ({"scope": None}, set()),
        ({"scope": {"classify": True}}, set()),
        ({"scope": 7}, set()),
    ],
)
def test_scopes_are_a_string_or_a_list_and_unknown_ones_mean_nothing(file, claim, scopes):
    assert identify(Callers(settings(file)), signed(**claim)).scopes == scopes


def test_another_claim_may_hold_the_scopes(file):
    callers = Callers(settings(file, jwt_scope_claim="scp"))
    assert identify(callers, signed(scope=None, scp=["admin"])).scopes == {"admin"}


def unsigned() -> bytes:
    def part(value: object) -> bytes:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=")

    _, payload, _ = signed().split(b".")
    return part({"alg": "none", "kid": "rsa"}) + b"." + payload + b"."


def with_public_key_as_secret() -> bytes:
    """The oldest trick: HS256 with what everybody can fetch."""
    pem = jwks("rsa").encode()
    _, payload, _ = signed().split(b".")
    fake = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT","kid":"rsa"}').rstrip(b"=")
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = mac.sign(fake + b"." + payload, pem)
    return fake + b"." + payload + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")


def altered() -> bytes:
    header, _, signature = signed().split(b".")
    _, payload, _ = signed(scope="admin").split(b".")
    return b".".join((header, payload, signature))


@pytest.mark.parametrize(
    "token",
    [
        signed(OTHER),
        signed(kid="other"),
        signed(EC, "ES256", "rsa"),
        signed(exp=int(time.time()) - 60),
        signed(nbf=int(time.time()) + 600),
        signed(iss="https://evil.example"),
        signed(aud="another-service"),
        signed(aud=None),
        signed(exp=None),
        signed(sub=None),
        unsigned(),
        with_public_key_as_secret(),
        altered(),
        b"a..c",
        b"a.b.c",
        b"\xff.\xfe.\xfd",
        b"a." + b"x" * 10_000 + b".c",
    ],
)
def test_what_the_provider_did_not_sign_for_us_is_refused(file, token):
    callers = Callers(settings(file))
    for _ in range(2):
        with pytest.raises(Unauthorized) as caught:
            identify(callers, token)
        assert token.decode("latin-1") not in caught.value.message


def test_a_token_that_was_right_vouches_for_no_other(file):
    callers = Callers(settings(file))
    assert identify(callers, signed()).id == "jwt:alice"
    for token in (altered(), signed()[:-1], signed() + b"A"):
        with pytest.raises(Unauthorized):
            identify(callers, token)


def test_keys_and_jwts_may_be_used_side_by_side(file, tmp_path):
    token = new_token()
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"id": "shop", "sha256": hash_of(token)}]}))
    callers = Callers(settings(file, keys_file=str(keys)))
    assert identify(callers, token.encode()).id == "key:shop"
    assert identify(callers, signed()).id == "jwt:alice"


def test_settings_that_would_trust_anybody_are_refused():
    with pytest.raises(ValidationError, match="needs jwt_issuer and jwt_audience"):
        AccessSettings(jwt_jwks="jwks.json")
    with pytest.raises(ValidationError, match="without TLS"):
        settings("http://login.example.com/jwks")


def test_a_wrong_file_stops_the_start(tmp_path):
    (tmp_path / "jwks.json").write_text("[]")
    with pytest.raises(WrongFileError, match="no JWKS"):
        Callers(settings(tmp_path / "jwks.json"))


def test_without_the_extra_the_cure_is_told(file, monkeypatch):
    monkeypatch.delitem(sys.modules, "deployments.access.jwt", raising=False)
    monkeypatch.setitem(sys.modules, "jwt", None)  # as where it is not installed
    with pytest.raises(ModuleNotFoundError, match=re.escape(installing("jwt"))):
        Callers(settings(file))


class Provider(http.server.ThreadingHTTPServer):
    """Serves a JWKS that tests change, and counts who asks."""

    def __init__(self, context: ssl.SSLContext) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.jwks = jwks("rsa")
        self.asked = 0
        self.was_asked = threading.Event()
        self.pause: threading.Event | None = None


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        self.server.asked += 1
        self.server.was_asked.set()
        if self.server.pause is not None:
            self.server.pause.wait(10)
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.jwks.encode())

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with Provider(context) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_keys_are_fetched_once_and_an_unknown_one_does_not_flood_the_provider(provider):
    async def run() -> None:
        callers = Callers(settings(f"https://127.0.0.1:{provider.server_port}/jwks"))
        tokens = [signed(sub=f"user-{n}") for n in range(50)]
        found = await asyncio.gather(*(callers.identify(token) for token in tokens))
        assert len({caller.id for caller in found}) == 50
        for n in range(50):
            with pytest.raises(Unauthorized):
                await callers.identify(signed(kid=f"unknown-{n}"))

    asyncio.run(run())
    assert provider.asked == 1


def test_a_provider_out_of_reach_is_told_as_503(provider):
    provider.shutdown()
    callers = Callers(settings("https://127.0.0.1:1/jwks"))
    with pytest.raises(NotReady, match="can't be fetched"):
        identify(callers, signed())


def test_who_hangs_up_during_the_fetch_does_not_take_the_keys_along(provider):
    provider.pause = threading.Event()

    async def run() -> str:
        callers = Callers(settings(f"https://127.0.0.1:{provider.server_port}/jwks"))
        first = asyncio.create_task(callers.identify(signed(sub="impatient")))
        assert await asyncio.to_thread(provider.was_asked.wait, 10)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        provider.pause.set()
        return (await callers.identify(signed())).id

    assert asyncio.run(run()) == "jwt:alice"
    assert provider.asked == 1


@pytest.mark.parametrize("answer", ["<html>down for maintenance</html>", "[]", '{"keys": 3}', ""])
def test_an_answer_that_is_no_jwks_is_told_as_503(provider, answer):
    provider.jwks = answer
    callers = Callers(settings(f"https://127.0.0.1:{provider.server_port}/jwks"))
    with pytest.raises(NotReady, match="can't be fetched"):
        identify(callers, signed())
