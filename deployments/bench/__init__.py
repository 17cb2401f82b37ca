"""Load on a running server, ours or another one, and what it shows.

- client: the one client for load over HTTP: asks when requests are due, and judges every answer
- dialects: how each server is asked for the labels of some texts, and where it says them
- latencies: latencies, answers a second; and the times at which an open loop asks
- plot: what was measured, as a picture
- run: several servers under the same loads, in turns
- target: one server under load: its requests, and whether it answers as it should

cli imports it, and so do scripts/ and tests/. It imports neither Ray nor HTTP's own folder.
"""
