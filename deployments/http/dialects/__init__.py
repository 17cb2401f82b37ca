"""Ways of asking over HTTP: whose JSON it is, and at which paths.

- base: The seam that a way of asking over HTTP hangs on: its paths, its JSON in and out, its errors
- classify: Our own dialect: POST /classify, in JSON, as a form or as plain text
- explain: POST /explain: what POST /classify answers, and what each part of the text added to the
  label
- infinity: infinity's dialect: POST /infinity/classify with `input`, all labels with their scores
- kserve: KServe's dialect, version 1: POST /v1/models/{name}:predict with `instances`
- kserve_words: What KServe and the Open Inference Protocol have in common: errors, and what is said
  of a model
- mcp: The Model Context Protocol: POST /mcp, the tools `classify` and `labels` for language models
- model_list: GET /v1/models, which KServe's clients and OpenAI's both ask: one answer that both
  understand
- moderations: OpenAI's moderations: POST /v1/moderations with `input`, one flag for each category
- oip: The Open Inference Protocol: POST /v2/models/{name}/infer, tensors in and out
- oip_inference: What the Open Inference Protocol asks and answers, whether over HTTP or over gRPC
- oip_tensors: Tensors of texts in, of labels and scores out: in JSON, or binary behind it
- openai_words: What OpenAI-like servers have in common: the shape of their errors, ids and usage
- sagemaker: SageMaker's dialect: POST /invocations with `inputs`, as Hugging Face's containers have
  it
- tei: Text Embeddings Inference's dialect: POST /predict and /, all labels with their scores
- tei_tokens: Text Embeddings Inference's POST /tokenize and /decode: texts as the model's tokenizer
  sees them
- tei_words: What the questions of Text Embeddings Inference have in common: errors and their
  statuses
- vertex: Vertex AI's dialect: POST /vertex/predict with `instances`, and at the path that Vertex
  names
- vllm: vLLM's and SGLang's dialect: POST /v1/classify with `input`, probabilities by the label's
  number

http/routes.py imports it. A new dialect is one new file here and one line in `DIALECTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from deployments.http.dialects.base import Dialect
from deployments.http.dialects.classify import ClassifyDialect
from deployments.http.dialects.explain import ExplainDialect
from deployments.http.dialects.infinity import InfinityDialect
from deployments.http.dialects.kserve import KserveDialect
from deployments.http.dialects.mcp import McpDialect
from deployments.http.dialects.moderations import ModerationsDialect
from deployments.http.dialects.oip import OipDialect
from deployments.http.dialects.sagemaker import SagemakerDialect
from deployments.http.dialects.tei import TeiDialect
from deployments.http.dialects.tei_tokens import TeiDecode, TeiTokenize
from deployments.http.dialects.vertex import VertexDialect
from deployments.http.dialects.vllm import VllmDialect
from deployments.settings import DialectName, DialectSettings, LimitSettings

_SHIPPED = DialectSettings()

Make = Callable[[LimitSettings, DialectSettings, str], Dialect]

DIALECTS: Mapping[DialectName, Make] = {
    "tei": TeiDialect,
    "vllm": VllmDialect,
    "infinity": InfinityDialect,
    "kserve": KserveDialect,
    "oip": OipDialect,
    "sagemaker": SagemakerDialect,
    "vertex": VertexDialect,
    "openai": ModerationsDialect,
    "mcp": McpDialect,
}
"""Of other servers. Each is made of the limits, the settings, and the model's name in URLs."""

BESIDE: Mapping[DialectName, tuple[Make, ...]] = {"tei": (TeiTokenize, TeiDecode)}
"""What else those servers are asked."""


def dialects(
    limits: LimitSettings, chosen: DialectSettings = _SHIPPED, model: str = "demo"
) -> tuple[Dialect, ...]:
    """All that the service understands. model: its id, whose last part is its name in URLs."""
    name = name_in_urls(chosen, model)
    others = {
        one: make(limits, chosen, name)
        for one, make in DIALECTS.items()
        if one in chosen.spoken and make is not VertexDialect
    }
    beside = [make(limits, chosen, name) for one in others for make in BESIDE.get(one, ())]
    ours = ClassifyDialect(limits, others.get(chosen.classify_default))
    spoken = (ours, ExplainDialect(limits), *others.values(), *beside)
    if "vertex" not in chosen.spoken:
        return spoken
    # Its paths come from outside, so it takes what is left.
    taken = [path for one in spoken for path in (*one.paths, *one.pages)]
    return (*spoken, VertexDialect(limits, chosen, name, taken))


def name_in_urls(chosen: DialectSettings, model: str) -> str:
    """What callers name the model where they must name one. model: its id."""
    return chosen.model_name or model.rstrip("/").rpartition("/")[2]


__all__ = ["DIALECTS", "Dialect", "dialects", "name_in_urls"]
