"""The parts of scripts/train_demo.py, and what scripts/make_tables.py reads.

- recipe: how long and how hard each stage trains
- data: reviews with labels, split
- snippets: English ones, with what twenty people made of each
- tokens: the vocabulary, and batches
- initialise: what can be told before the first step
- stages: what each stage minimises
- loop: the optimisation loop of both
- linear: linear models, as rivals and as teacher
- evaluate: scores with their uncertainty
- card: the model card
- run: all of it, in order
"""
