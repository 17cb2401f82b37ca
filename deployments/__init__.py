"""Text classification with BERT on Ray Serve."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("rayclassify")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0.0.0"


def installing(extra: str) -> str:
    """The command that brings an extra of this package, which is on no index."""
    return f"`pip install -e '.[{extra}]'` in a checkout, or `pip install '<wheel>[{extra}]'`"
