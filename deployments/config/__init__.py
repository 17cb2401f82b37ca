"""The strict check of a Serve YAML, before anything is deployed.

- capacity: What Serve is told of our three deployments where a config is silent
- check: Strict check of a Serve YAML before anything is deployed
- crosscheck: Numbers that Ray takes one by one and that hurt in production when they stand together
- keys: What pydantic finds in a YAML document, as problems: path, message, and the near name
- ray_inside: What we rely on inside Ray that its documentation does not promise, as read in one
  version of it

app, launch, deploying, replica and cli import it. It imports settings only.
"""
