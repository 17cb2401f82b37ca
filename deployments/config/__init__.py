"""The strict check of a Serve YAML, before anything is deployed.

- check: Strict check of a Serve YAML before anything is deployed
- crosscheck: Numbers that Ray takes one by one and that hurt in production when they stand together
- keys: Unknown keys of a YAML document, found by walking the pydantic models it is meant for

launch, deploying, replica and cli import it. It imports settings only.
"""
