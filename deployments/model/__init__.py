"""What a model's directory or hub repository says: read, checked, proven. No Ray, no HTTP.

- cache: Where what is costly to find out or to make is kept: choices of engines, converted models
- certificate: One answer to "does it give the same answers as my notebook?": what was loaded, and
  proven
- class_facts: What a model's class knows and its config.json need not say: defaults, tables, what
  it takes
- config_json: What a model's JSON files say, as plain values; what can't be honoured is refused by
  name
- deployed: Settings as they are deployed: whoever starts later loads the model that the first one
  loaded
- files: What a look at a model directory's files can tell, in about a second and without torch
- hub: Which commit of a hub model a config means, asked once: branches and tags move
- load: A model's parts, read and checked, and the fingerprint that tells one model from another
- probe: Texts on which engines are compared, for every model
- quantized: What quantization.json says: that a model may run in 8 bits, by its owner's own texts
- read_apart: A model's parts without what reads them: `reading` runs once, elsewhere, and what it
  made is kept until a file, a version, the kind of machine or a setting of the model changes
- reading: A model's directory as transformers reads it: all but the weights, checked, proven, made
  plain
- source: Where a model's files are, and the two errors that say why a model is not served
- steps: How long each step of a model's start takes
- tokenizer_parity: Whether our way of tokenizing equals AutoTokenizer's, called as transformers'
  pipeline calls it

engines and all above import it. It imports privacy, pipeline, settings.
"""
