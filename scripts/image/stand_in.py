"""A base image out of Debian's packages, where no registry of images can be reached.

python:3.11-slim-bookworm is Debian 12 and a Python of its own; this is Debian 12 with Debian's
Python 3.11. It shows that the Dockerfile builds, and that what it builds works; the base's size
is another one.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

from scripts.image.engine import Engine

PACKAGES = ("ca-certificates", "python-is-python3", "python3", "python3-pip", "python3-venv")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def make_base(engine: Engine, image: str) -> None:
    """Makes `image`; needs mmdebstrap, root and a mirror of Debian.

    Raises CalledProcessError, EngineError.
    """
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "base.tar"
        subprocess.run(
            [
                *("mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
                *("bookworm", archive),
            ],
            check=True,
        )
        name = f"docker.io/{full(image)}"
        engine.call("import", f"--change=ENV PATH={PATH}", str(archive), name)


def full(image: str) -> str:
    """The name with the folder that official images have, as engines store it."""
    return image if "/" in image else f"library/{image}"
