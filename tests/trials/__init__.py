"""What `scripts/torture.py` and `scripts/cluster_trial.py` do to the service.

Modes, one a module:

- overload: far more than it can answer
- faults: parts of a cluster killed, frozen, poisoned
- updates: what is done to it on purpose
- model_updates: updates between models that disagree
- inputs: bad input of every kind
- access: keys, scopes, rates, quotas
- privacy: texts that must be seen nowhere
- autoscaling: loads that need a second Classifier, and such that do not
- pretended_gpus: 1 to 8 Classifiers under one trace, ours beside Serve's own policy
- soak: an hour of mixed traffic

Modes of `scripts/cluster_trial.py`:

- nodes: where replicas run on seven nodes; loss, updates and scaling across them
- surge: an update that finds room, and one that does not
- network: slow lines, lost packets, a node cut off
- failover: the head killed under load, its state in Redis or not

What they share:

- session: promises and findings
- command: modes by name, and which promises they kept
- report: docs/reliability.md
- cluster_page: docs/cluster.md
- fleet: a cluster with pools of CPU and GPU nodes
- machines: machines with a network of their own, on this one
- wire: what lies between them: delay, loss
- redis_server: Ray's store outside the head
- plots: the soak's plot
- cluster: a service on several nodes under steady load
- steady: texts with known labels, one after the other
- mixed: what callers send on an ordinary day
- guests: well-behaved clients beside bad ones
- handles: callers by handle
- raw_http: bare sockets
- corpus: bad bodies and headers
- framing: requests whose end two servers could see in different places
- throwing: sends both, and judges what comes back
- slow_clients: clients that never finish
- guarded: a service with keys
- models: models to update to
- faulty: a model that does its worst at one character
- privacy_cases: ways in for a text
- privacy_faults: the service with faults that quote texts
- canary: texts that exist nowhere else
- places: everywhere that a service writes or shows anything
- heap: what a process still holds of a text
- watch: memory and open files of every process
- growth: whether a series grows
- soak_findings: what a soak's figures say
"""
