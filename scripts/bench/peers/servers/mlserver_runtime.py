"""BERT behind MLServer, as its documentation's page "Custom Inference Runtimes" says.

MLServer joins the requests of a batch into one before `predict`, and parts its answer again.
"""

from __future__ import annotations

import os

from mlserver import MLModel
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

DTYPE = os.environ["PEER_DTYPE"]


class BertRuntime(MLModel):
    async def load(self) -> bool:
        if DTYPE != "none":
            from bert import Bert

            self.bert = Bert()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts = StringCodec.decode_input(payload.inputs[0])
        if DTYPE == "none":
            labels = ["null"] * len(texts)
        else:
            labels = [answer["label"] for answer in self.bert.classify(texts)]
        return InferenceResponse(
            model_name=self.name, outputs=[StringCodec.encode_output("label", labels)]
        )
