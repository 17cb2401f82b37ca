"""What a user's own labelled table says of models: which is good, fast and small enough.

- baseline: character n-grams and a linear model, the rival that needs no BERT
- calibrating: a model calibrated on held-out rows: fitted on one half, checked on the other
- calibration: temperature, when to abstain, sets of labels, and what they promise
- drifting: a baseline of drift: how a model's answers and lengths are distributed over reference
  texts
- choice: which models are worth having, and which of them keeps within stated limits
- evaluation: every candidate on the same rows, with its speed, intervals and rivals
- labelled: tables with labels: which rows count, and why the others don't
- report: what an evaluation found, as one HTML page, and its plot
- running: a candidate in a process of its own: labels, latency, throughput, memory
- statistics: scores of labels with their uncertainty, and whether two models differ

cli imports it. It imports local, bulk and all below, and no Ray.
"""
