"""From what a request shows to who asks: scopes and limits."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deployments import installing
from deployments.access.keys import ApiKey, Scope, find_key, parse_keys
from deployments.access.limits import Allowance, Rates
from deployments.access.watched_file import WatchedFile
from deployments.pipeline.errors import Unauthorized
from deployments.settings import AccessSettings

if TYPE_CHECKING:
    from deployments.access.jwt import JwtVerifier

ANONYMOUS = "anonymous"
# Callers of JWTs are as many as their provider has users; the least recently seen go first.
_MAX_ALLOWANCES = 10_000


@dataclass(frozen=True, slots=True)
class Caller:
    """id: a key's id, a JWT's `sub`, or "anonymous"."""

    id: str
    scopes: frozenset[Scope]
    allowance: Allowance

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes or "admin" in self.scopes


class Callers:
    """Tells who asks, and keeps what each has left.

    Raises:
        WrongFileError: keys_file or the JWKS file can't be used.
        ModuleNotFoundError: JWTs without the extra `jwt`.
    """

    def __init__(self, access: AccessSettings) -> None:
        self._access = access
        self._keys = WatchedFile(access.keys_file, parse_keys) if access.keys_file else None
        self._jwt: JwtVerifier | None = None
        if access.jwt_jwks is not None:
            try:
                from deployments.access.jwt import JwtVerifier
            except ImportError:
                raise ModuleNotFoundError(
                    "args.access.jwt_jwks needs PyJWT on every machine that runs a Tokenizer. "
                    f"Install it: {installing('jwt')}."
                ) from None
            self._jwt = JwtVerifier(access)
        self._allowances: OrderedDict[str, Allowance] = OrderedDict()
        # Made once for each entry that was read: a request then costs half.
        self._of_keys: dict[str, tuple[ApiKey, Caller]] = {}
        self._default_rates = Rates(access.texts_per_s, None, access.texts_per_day)

    async def identify(self, token: bytes | None) -> Caller:
        """The caller who shows this token, or none.

        Raises:
            Unauthorized: there is none and one is needed, or it is not valid (any more).
        """
        if token is None:
            if self._access.allow_anonymous:
                return self._caller(ANONYMOUS, frozenset({"classify"}), self._default_rates)
            raise Unauthorized(
                "This service needs a key. Send it as `Authorization: Bearer KEY` or `X-API-Key: "
                "KEY`."
            )
        if self._keys is not None and (key := find_key(self._keys.value, token)) is not None:
            return self._of_key(key)
        if self._jwt is not None and token.count(b".") == 2:
            claims = await self._jwt.verify(token)
            return self._caller(f"jwt:{claims.subject}", claims.scopes, self._default_rates)
        raise Unauthorized("This key is not known here: mistyped, revoked, or of another service.")

    def _of_key(self, key: ApiKey) -> Caller:
        if key.expires is not None and key.expires.timestamp() <= time.time():
            raise Unauthorized(f"This key expired on {key.expires:%Y-%m-%d}. Ask for a new one.")
        known = self._of_keys.get(key.id)
        if known is not None and known[0] is key:
            return known[1]
        default = self._default_rates
        rates = Rates(
            key.texts_per_s or default.texts_per_s,
            key.burst_texts,
            key.texts_per_day or default.texts_per_day,
        )
        # What it has used stays used, as long as its limits stay.
        if known is not None and known[1].allowance.rates == rates:
            allowance = known[1].allowance
        else:
            allowance = Allowance(rates)
        caller = Caller(f"key:{key.id}", frozenset(key.scopes), allowance)
        self._of_keys[key.id] = key, caller
        return caller

    def _caller(self, caller_id: str, scopes: frozenset[Scope], rates: Rates) -> Caller:
        allowances = self._allowances
        allowance = allowances.get(caller_id)
        if allowance is None or allowance.rates != rates:
            allowance = allowances[caller_id] = Allowance(rates)
            if len(allowances) > _MAX_ALLOWANCES:
                allowances.popitem(last=False)
        else:
            allowances.move_to_end(caller_id)
        return Caller(caller_id, scopes, allowance)
