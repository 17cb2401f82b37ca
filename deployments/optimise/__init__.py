"""What a user's own labelled table says of models: which is good, fast and small enough.

- bases: the model that a training starts from: its head, its labels, what it can read
- baseline: character n-grams and a linear model, the rival that needs no BERT
- calibrating: a model calibrated on held-out rows: fitted on one half, checked on the other
- calibration: temperature, when to abstain, sets of labels, and what they promise
- card: the card of a model that was made here: what of, how, how good
- cascading: the threshold of a cascade: fitted on one half of held-out rows, checked on the other
- choice: which models are worth having, and which of them keeps within stated limits
- distilling: a smaller model that answers as a larger one does
- drifting: a baseline of drift: how a model's answers and lengths are distributed over reference
  texts
- evaluation: every candidate on the same rows, with its speed, intervals and rivals
- figures: how good a trained model is on the rows that chose it
- finetuning: a classifier made of an encoder and labelled rows
- labelled: tables with labels: which rows count, and why the others don't
- number_statistics: how well a regression's numbers fit, with their uncertainty
- problems: what is measured of a model: one label a text, sets of labels, or numbers
- pruning: feed-forward neurons that matter least, cut off
- quantizing: 8 bits held against 32, on texts
- report: what an evaluation found, as one HTML page, and its plot
- running: a candidate in a process of its own: labels, latency, throughput, memory
- saving: a model's directory, as it is written
- set_statistics: scores of models that give several labels, with their uncertainty
- shrunk: a smaller model beside the one that it was made of
- statistics: scores of labels with their uncertainty, and whether two models differ
- students: fewer layers, narrower feed-forward parts
- training: a loop that can be killed, and goes on where it was
- trimming: a vocabulary cut, what it changes on texts held out, and the model written
- unfinished: the files that a run goes on from
- vocabulary: a vocabulary cut to the tokens that some texts use

cli imports it. It imports local, bulk and all below, and no Ray.
"""
