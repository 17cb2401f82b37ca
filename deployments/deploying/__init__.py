"""Change what a running cluster serves, and get back, over the REST API of Ray's dashboard.

- clusters: Where the cluster is whose applications are meant, and the token it wants
- dashboard: The REST API of Ray's dashboard, as far as deploying needs it
- drift_view: What the replicas of a service say of drift, put together: which feature moved, and
  how far
- kept: The configs that served, kept to get back to, and one deploy at a time
- live_view: What a service does just now, out of its cluster, or only of its own URL
- merging: What is sent to Serve: this application changed, and everything else as it stands there
- pinning: What a model was when it was deployed, in the application's args: its commit, its
  fingerprint
- shadow_view: What the replicas say of a model on trial: how often it agrees, what it would change
- rates: Prometheus metrics looked at again and again: what they say, what they gain a second
- rollout: A deploy from its PUT to its end: watched, and taken back where it failed
- room: What the nodes of a cluster have free, and why a replica finds no place
- serve_state: What Serve tells of an application, in our terms: the JSON of the REST API in, facts
  out
- surge: Where an update's new replicas find room beside the old ones, and where they don't

replica and cli import it. It imports launch and all below.
"""
