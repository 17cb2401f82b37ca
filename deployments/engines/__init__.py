"""Ways of running a model, and choosing one, all behind the `Engine` protocol. No Ray, no HTTP.

- attention: Attention inside each text of a packed row, without a mask over the whole row
- auto: The fastest precision here that agrees with the model, measured once for a kind of machine
- base: The one protocol behind which every way of running the model stands
- cpu: What this CPU is and which instructions it has for multiplying matrices
- cuda_graphs: CUDA graphs of small packed batches: recorded once, replayed in one launch
- disentangled: DeBERTa without padding: attention by relative positions inside runs of equal
  length, the rest in one row
- encoder: One encoder for BERT and its kin: the same post-norm layer under eight names
- forward: How a class's own forward is called, and what of it another call would not find again
- gemm: What this CPU or GPU reaches in the matrix products that BERT is made of
- graph_trial: CUDA graphs held to the plain runner, timed beside it, kept as far as they gain
- hardware: Which device and precision to run on: what was asked for, or the best that is here
- ids: Which token ids a model has rows for: what lies outside is found before a pass, on any device
- isolation: Measures precisions in a process of their own
- kept: What a start found out about a model on this kind of machine, kept for the next ones
- linear: Linear layers as fast as the CPU multiplies: weights laid out once, activation in the
  product
- loaded: A model ready to answer: its parts and its engine, loaded and proven by one function for
  all
- loading: Loading a classifier's weights, strictly: what would answer at random is refused
- machine: What this machine has to give
- measurement: Precisions measured one after the other: whether they agree, and how fast they are
- null: No model at all: what is left is what the chain itself costs
- packed: Texts without padding: all of a batch in one row, each attending to itself only
- padded: Padded rows, grouped by length so that little is padding: for what can't run packed
- parity: Whether two ways of running a model agree: what to compare them on, and how far is too far
- proof: A loaded model beside transformers' own forward pass in float32, from text to logits
- side_by_side: Rows of a batch side by side, one CPU thread each, where that is faster than all
  threads in each
- torch_engine: The model through torch: packed where its architecture allows, else padded by length
- ways: Ways of running a model in torch, from the fastest to the plainest, and the first that is
  right
- weights: What a file of weights holds beside what the classifier reads: harmless, or a reason to
  refuse

classifier.py, local.py, tuning, launch and cli import it. It imports model and all below.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deployments.engines.base import Engine
    from deployments.engines.kept import Store
    from deployments.settings import Settings

# Read by libgomp, in which torch's threads wait for one another, when torch is loaded. Its own
# 300,000 rounds take whole slices of a core that another process could have, product by product.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")


def make_engine(settings: Settings, num_threads: int, store: Store | None = None) -> Engine:
    """The engine that `settings.engine.name` names; not loaded yet.

    store: where what was measured and proven is kept with the application.
    """
    # Here, so that who needs one way of running a model imports that one only.
    if settings.engine.name == "none":
        from deployments.engines.null import NullEngine

        return NullEngine()
    if settings.engine.dtype == "auto":
        from deployments.engines.auto import AutoEngine

        return AutoEngine(settings.model, settings.engine, num_threads, store)
    from deployments.engines.torch_engine import TorchEngine

    named = settings.engine.model_copy(update={"name": "torch"})
    return TorchEngine(settings.model, named, num_threads, store)
