"""How many replicas each deployment has, and why. No Ray, no HTTP.

- files: Small files beside Serve's logs, where Ray's dashboard lets them be read from elsewhere
- policy: How many replicas a deployment needs, from the work that its replicas say they have
- report: What the policy wrote down, for people: replicas now and wanted, and why there are so many
- starts: How long new replicas took to serve, step by step: each writes it down, for `status
  --starts`

Serve's controller runs the policy; config, replica, deploying and cli import it. It imports nothing
of ours.
"""
