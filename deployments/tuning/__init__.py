"""The search for the settings that suit a machine and the texts it is asked; needs no Ray.

- choice: What was tried, which of it is worth having, and which of that to take
- config: The chosen setup, written into a copy of the user's own YAML, comments and all
- measure: Replicas of one setup, started together, and what they give under load together
- plot: Throughput against p99 of all setups, the front and the choice marked, as SVG or PNG
- search: Successive halving: all setups shortly, the better half longer, and so on while time is
  left
- worker: One replica under load, in a process of its own: the real engine behind the real queue

cli imports it. It imports engines and all below.
"""
