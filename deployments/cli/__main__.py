"""`python -m deployments.cli`, for where the console script is not on the PATH."""

from deployments.cli import app

app(prog_name="rayclassify")
