"""Why a model answered as it did: what each part of a text added to a label.

- attribution: integrated gradients, gradient × input and occlusion, over the token ids of one text
- explainer: one text in, an explanation with offsets into the caller's own text out
- spans: from tokens to whole characters of the text, as it was before redaction

local and cli import it. It imports engines, model, privacy and pipeline; no Ray, no HTTP.
"""
