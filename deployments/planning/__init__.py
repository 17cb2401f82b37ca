"""How many replicas a traffic needs, and what a crowd of them does over a day. No Ray, no HTTP.

- gpus: What GPUs do at most, and how many tokens a second of a model that is likely to give
- plan: The fewest replicas that keep a latency, what they cost, and why a wish can't be had
- queueing: How long texts wait for a replica that batches by tokens, by formula
- rendered: A plan as a Serve config, and as counts of worker pods
- serve_delays: Serve's own delays around a policy, in simulated time; it alone imports Ray
- service_times: What each part of the service takes: the figures that the rest computes with
- simulation: The service in windows of a second: load, queues, scaling policy, latency, cost
- stages: Latency of one request through all parts, as a sample
- traces: Requests a second over time: a day, and a flash crowd

cli and scripts/simulate.py import it. It imports scaling, pipeline and settings.
"""
