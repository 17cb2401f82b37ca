"""The glue that imports Ray: what the three deployments share.

- base: What all three deployments share: logs, live settings, and errors across processes
- cluster_store: What an application's replicas have found out, kept with the cluster instead of a
  node's disk
- cluster_view: What Serve's controller says of the application that a replica belongs to
- drift_state: Drift as an ingress tells it: what it counts itself, and what a Postprocessor does
- explainers: The ingress's way to Explainers, of which there may be none until somebody asks
- holding: Which calls Classifiers hold, and get on with: asked of all of them
- metric_table: Every metric of ours: its name, its kind, its labels, and what it is for
- metrics: What happens, as Prometheus metrics at Ray's own metrics endpoint of each node
- model_chain: All that an ingress holds of one model, from a text's arrival to its answer
- second_models: What an ingress holds beside its model: a smaller one in front, one on trial behind
- tracing: Traces by OpenTelemetry: one for a request, through all three deployments, sent by OTLP
- updates: What a replica sees of an update of its application: others that serve, and how it went

tokenizer.py, classifier.py, postprocessor.py and explainer.py import it.
"""
