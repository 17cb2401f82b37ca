"""Simulated against measured: the package behind scripts/simulate.py.

- device: A model that sleeps as a device would work: a fixed time a pass, and more a token
- measure: Real runs of the service on 1, 2, 4 and 8 such devices, which may be slept through
- compare: The simulation of what was measured, and how far it is off
- scenario: The day of a million requests a second, and the figures that it starts from
- page: docs/scale.md's tables, from the JSON
- plots: The pictures in docs/images, for light and for dark pages

Only scripts/simulate.py and tests import it. It imports scripts.bench, deployments, and of
tests the trace of the trial `gpus`.
"""
