"""Text classification with BERT on Ray Serve."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("rayclassify")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"
