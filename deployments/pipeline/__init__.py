"""What happens to a text, from its tokens to its label. No Ray, no HTTP.

- batcher: The classifier's queue: merges micro-batches from all callers into batches by token
  budget
- cascade: A small model answers first; texts that it is unsure of go on to the large one
- causes: What went wrong, out of a long text with tracebacks: a log's, or what Serve says of a
  failure
- drift: Whether texts and answers are still of the kind that a stored baseline has: counts, no
  texts
- drift_texts: What of texts a drift baseline counts: lengths, and tokens that the vocabulary lacks
- errors: Every error a caller can meet, in one tree
- explaining: Explained answers: classified as ever, and then explained by the same version of the
  model
- fair_queue: Turns for flows: each gets its share of what is served, however much it has waiting
- fast_tokenizer: A faster tokenizer in the place of the model's own, as long as it gives the same
  ids
- gate: The gate: whether a request is taken in, by how long it would wait
- health: Whether a replica's model gets on with its work, not only whether its process answers
- latency_model: What a forward pass costs on this machine, learned from those that ran
- live_models: The models that Classifiers hold now, and texts encoded for each of them
- microbatch: The ingress's gatherer: one call to the classifier carries all texts that arrived
  meanwhile
- observer: The seam for whoever wants to know what happens: called at each stage, silent by default
- parts: All that texts and logits need of a model beside its weights, under one name on the wire
- pipeline: The order of the stages, in one place: encode → predict → postprocess
- quarantine: Texts under suspicion of killing the model's process, and those found guilty
- queue: Calls that wait for the model, and the slices of them that make up a batch
- retry: A call to one of several replicas, tried again where one dies, and beside it where one is
  stuck
- shadow: A model on trial, asked a share of the texts once they are answered
- tasks: Kinds of models, by what their head means
- token_ids: Token ids that callers made themselves, among texts that are still to be encoded
- token_views: Texts as the model's tokenizer sees them, and back, for callers who ask for just that
- tokenize: Text → token ids, by the model's own Rust tokenizer, many texts a call
- types: What travels between the stages: plain arrays, tuples and frozen dataclasses, cheap to
  pickle
- windows: Long texts in windows, whose logits become one answer

Anybody may import it. It imports settings only.
"""
