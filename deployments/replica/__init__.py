"""The glue that imports Ray: what the three deployments share.

- at_work: Which calls the Classifiers' models work on at the moment, asked of all of them
- base: What all three deployments share: logs, live settings, and errors across processes
- updates: What a replica sees of an update of its application: others that serve, and how it went

tokenizer.py, classifier.py and postprocessor.py import it.
"""
