"""The parts of scripts/benchmark.py; tests/ and tests/trials use its processes too.

The load client is the package's own, deployments.bench: `rayclassify bench` asks by it too.

- process: starts a process and ends it with all that it started
- child: a process that is asked line by line
- service: our own service, from a Serve config with some changes
- cluster: a Ray cluster of several nodes on this machine
- kinds: requests of one text, and of many
- load: the closed loop of wrk, for the most that a service can
- openloop: latency at the times of a Poisson process
- passes: how long a forward pass takes, fitted or told to the stand-in
- ideal: the least latency that a model of the same pass times allows
- machine: what figures depend on
- models: models of a real size with random weights
- workload: the texts that everybody is asked
- engines: engines in a process of their own
- flops: what a text costs, and what the machine can do
- standin: a model that needs no core
- naming: what it costs that ids and logits name their model
- store: the file of a run, and its progress
- session: options, models and texts of a run
- modes: what measures engines and our service
- choice: what `engine: auto` took beside each precision
- versus: what measures us beside others
- beside: models through the service, side by side
- judged: how right they are, beside how fast
- bulk: rows a second of every way to label a table
- bulk_child: those ways that live inside Ray
- against: this checkout beside another commit
- peers: the others
- report: docs/benchmark.md
- readme: the README's table
- plots: the plots
"""
