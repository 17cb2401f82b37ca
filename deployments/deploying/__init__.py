"""Change what a running cluster serves, and get back, over the REST API of Ray's dashboard.

clusters    where the cluster is, its token, and whether KubeRay manages it
dashboard   the REST API
serve_state what Serve tells of an application, and what that means
room        what nodes have free, and why a replica finds no place
merging     the config that is sent: this application changed, the others as they are
pinning     what a model was at deploy: commit and fingerprint in the application's args
kept        the configs that served, and one deploy at a time
rollout     all of it in order: deploy, watch, roll back

Imports no Ray. Imported by cli/ only.
"""
