"""JWTs of an identity provider (OIDC), verified by PyJWT against its public keys."""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import time
from dataclasses import dataclass
from typing import Any, cast, get_args

import jwt

from deployments.access.keys import Scope
from deployments.access.watched_file import WatchedFile, WrongFileError
from deployments.pipeline.errors import NotReady, Unauthorized
from deployments.settings import AccessSettings

logger = logging.getLogger(__name__)

# Public-key signatures only: with a shared secret, whoever checks a token could make one.
_ALGORITHMS = ["RS256", "PS256", "ES256", "ES384", "EdDSA"]
_SCOPES = frozenset(get_args(Scope))
_LEEWAY_S = 30
# Verifying takes 30 to 100 µs, so a token that was right is not verified again for so long.
_TRUSTED_S = 60.0
_MAX_TRUSTED = 4_096
_MAX_TOKEN_BYTES = 8_192
_FETCH_TIMEOUT_S = 5
_REFETCH_S = 300.0
# A token that names an unknown key makes us ask again, but not at every attempt of an attacker.
_MIN_REFETCH_S = 30.0


@dataclass(frozen=True, slots=True)
class Claims:
    """What we need of a JWT. expires_at: seconds since the epoch."""

    subject: str
    scopes: frozenset[Scope]
    expires_at: float


class JwtVerifier:
    """Verifies signature, issuer, audience and times of a token.

    Raises:
        WrongFileError: the JWKS file can't be used.
    """

    def __init__(self, access: AccessSettings) -> None:
        place = cast("str", access.jwt_jwks)
        self._issuer = cast("str", access.jwt_issuer)
        self._audience = cast("str", access.jwt_audience)
        self._scope_claim = access.jwt_scope_claim
        self._keys = _FetchedKeys(place) if "://" in place else _KeysOfFile(place)
        self._trusted: dict[bytes, tuple[Claims, float]] = {}

    async def verify(self, token: bytes) -> Claims:
        """The claims of a valid token.

        Raises:
            Unauthorized: it is not valid; the message says why and quotes nothing.
            NotReady: the provider's keys can't be fetched.
        """
        now = time.time()
        trusted = self._trusted.get(token)
        if trusted is not None and now < trusted[1]:
            return trusted[0]
        if len(token) > _MAX_TOKEN_BYTES:
            raise Unauthorized(f"The JWT has {len(token)} bytes; the limit is {_MAX_TOKEN_BYTES}.")
        try:
            header = jwt.get_unverified_header(token)
            key = await self._keys.find(str(header.get("kid", "")))
            claims = self._claims_of(
                jwt.decode(
                    token,
                    key,
                    algorithms=_ALGORITHMS,
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=_LEEWAY_S,
                    options={"require": ["exp", "iss", "aud", "sub"]},
                )
            )
        except jwt.PyJWTError as exc:
            raise Unauthorized(
                f"The JWT is not valid here ({type(exc).__name__}). Get a new one from "
                f"{self._issuer} for audience {self._audience}."
            ) from None
        if len(self._trusted) >= _MAX_TRUSTED:
            self._trusted.clear()
        self._trusted[token] = claims, min(now + _TRUSTED_S, claims.expires_at)
        return claims

    def _claims_of(self, payload: dict[str, Any]) -> Claims:
        granted = payload.get(self._scope_claim) or ()
        names = granted.split() if isinstance(granted, str) else granted
        scopes = {str(name) for name in names} if isinstance(names, list | tuple) else set()
        return Claims(
            str(payload["sub"]), cast("frozenset[Scope]", _SCOPES & scopes), float(payload["exp"])
        )


def _parse_jwks(content: bytes) -> jwt.PyJWKSet:
    try:
        return jwt.PyJWKSet.from_dict(json.loads(content))
    except (ValueError, TypeError, AttributeError, jwt.PyJWTError) as exc:
        raise WrongFileError(f"it is no JWKS ({type(exc).__name__})") from None


def _pick(keys: jwt.PyJWKSet, kid: str) -> jwt.PyJWK | None:
    if not kid and len(keys.keys) == 1:
        return keys.keys[0]
    return next((key for key in keys.keys if key.key_id == kid), None)


class _KeysOfFile:
    def __init__(self, path: str) -> None:
        self._file = WatchedFile(path, _parse_jwks)

    async def find(self, kid: str) -> jwt.PyJWK:
        key = _pick(self._file.value, kid)
        if key is None:
            raise jwt.InvalidKeyError
        return key


class _FetchedKeys:
    """Fetched when first needed, then every few minutes, by one request at a time."""

    def __init__(self, url: str) -> None:
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=_FETCH_TIMEOUT_S)
        self._keys: jwt.PyJWKSet | None = None
        self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> jwt.PyJWK:
        await self._fetch_if_older_than(_REFETCH_S)
        key = _pick(self._keys, kid) if self._keys else None
        if key is None:
            await self._fetch_if_older_than(_MIN_REFETCH_S)
            key = _pick(self._keys, kid) if self._keys else None
        if self._keys is None:
            raise NotReady("The identity provider's keys can't be fetched. Try again soon.", 5.0)
        if key is None:
            raise jwt.InvalidKeyError
        return key

    async def _fetch_if_older_than(self, age_s: float) -> None:
        now = time.monotonic()
        if self._fetching is None and now - self._tried_at >= age_s:
            self._tried_at = now
            self._fetching = asyncio.get_running_loop().create_task(
                self._fetch(), context=contextvars.Context()
            )
        if self._fetching is not None:
            # Who hangs up meanwhile does not take the keys along.
            await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        try:
            self._keys = await asyncio.to_thread(self._client.get_jwk_set, refresh=True)
        except (jwt.PyJWTError, OSError, ValueError) as exc:  # the old keys stay
            logger.error("the identity provider's keys: %s", type(exc).__name__)
        finally:
            self._fetching = None
