"""Ways of running a model, and choosing one, all behind the `Engine` protocol. No Ray, no HTTP.

- artefacts: Converted models on disk: made once, whole or not at all, and made again where damaged
- attention: Attention inside each text of a packed row, without a mask over the whole row
- auto: The fastest engine here that agrees with the model, found by measurement at the first start
- base: The one protocol behind which every way of running the model stands
- catalog: Which engines there are to choose from, on this device and with what is installed
- choices: Choices of engines on disk: when they still hold, and one measurer at a time
- cpu: What this CPU is and which instructions it has for multiplying matrices
- encoder: One encoder for BERT and its kin: the same post-norm layer under eight names
- forward: How a class's own forward is called, and what of it another call would not find again
- gemm: What this CPU or GPU reaches in the matrix products that BERT is made of
- graph: What engines that run a converted model have in common; each adds `convert` and
  `open_runner`
- hardware: Which device and precision to run on: what was asked for, or the best that is here
- ids: Which token ids a model has rows for: what lies outside is found before a pass, on any device
- isolation: Measures candidates in a process of their own
- known_speeds: How fast engines were on other machines, by kind of CPU: what an extra would bring
  before it is installed
- linear: Linear layers as fast as the CPU multiplies: weights laid out once, activation in the
  product
- loaded: A model ready to answer: its parts and its engine, loaded and proven by one function for
  all
- loading: Loading a classifier's weights, strictly: what would answer at random is refused
- machine: What this machine has to give
- measurement: Candidates measured one after the other: whether they agree, and how fast they are
- null: No model at all: what is left is what the chain itself costs
- openvino: OpenVINO on the CPU: float32, bfloat16, or int8 quantised by NNCF
- packed: Texts without padding: all of a batch in one row, each attending to itself only
- padded: Padded rows, grouped by length so that little is padding: for what can't run packed
- padding: Texts of a batch as padded rows, grouped by length so that little is padding
- parity: Whether two ways of running a model agree: what to compare them on, and how far is too far
- proof: A loaded model beside transformers' own forward pass in float32, from text to logits
- torch_engine: The model through torch: packed where its architecture allows, else padded by length
- ways: Ways of running a model in torch, from the fastest to the plainest, and the first that is
  right
- weights: What a file of weights holds beside what the classifier reads: harmless, or a reason to
  refuse

classifier.py, local.py, tuning, launch and cli import it. It imports model and all below.
"""

from deployments.engines.base import Engine
from deployments.settings import Settings


def make_engine(settings: Settings, num_threads: int) -> Engine:
    """The engine that `settings.engine.name` names; not loaded yet."""
    if settings.engine.name == "none":
        from deployments.engines.null import NullEngine

        return NullEngine()
    if "auto" in {settings.engine.name, settings.engine.dtype}:
        from deployments.engines.auto import AutoEngine

        return AutoEngine(settings.model, settings.engine, num_threads)
    from deployments.engines.catalog import Candidate, make

    named = Candidate(settings.engine.name, settings.engine.dtype)
    return make(named, settings.model, settings.engine, num_threads)


__all__ = ["Engine", "make_engine"]
