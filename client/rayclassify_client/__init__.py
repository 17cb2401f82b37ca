"""Asks a rayclassify service: text in, label out. Needs httpx and nothing else.

- answers: What a service says about a text
- asking: A request and its answer, without any network: what both clients share
- asynchronous: AsyncClient
- errors: Every error that a service can answer, and what can happen on the way to it
- synchronous: Client
"""

from __future__ import annotations

from rayclassify_client.answers import Answer
from rayclassify_client.asynchronous import AsyncClient
from rayclassify_client.errors import ClientError, ServiceError
from rayclassify_client.synchronous import Client

__version__ = "0.1.0"

__all__ = ["Answer", "AsyncClient", "Client", "ClientError", "ServiceError", "__version__"]
