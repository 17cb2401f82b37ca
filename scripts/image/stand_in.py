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
# Of Ray's own images: a user `ray` (1000:100), its Python in the home folder, and wget.
LIKE_RAYS = (
    "useradd --root $1 --uid 1000 --gid 100 --create-home ray",
    "chroot $1 python3 -m venv /home/ray/anaconda3",
)


def make_base(engine: Engine, image: str) -> None:
    """Makes `image`; needs mmdebstrap, root and a mirror of Debian.

    Raises CalledProcessError, EngineError.
    """
    rays = image.startswith("rayproject/")
    packages = (*PACKAGES, "wget") if rays else PACKAGES
    hooks = [f"--customize-hook={hook}" for hook in LIKE_RAYS] if rays else []
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    changes = (
        [f"ENV PATH=/home/ray/anaconda3/bin:{path}", "USER ray"] if rays else [f"ENV PATH={path}"]
    )
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "base.tar"
        subprocess.run(
            [
                *("mmdebstrap", "--variant=minbase", f"--include={','.join(packages)}", *hooks),
                *("bookworm", archive),
            ],
            check=True,
        )
        engine.call(
            "import",
            *(f"--change={one}" for one in changes),
            str(archive),
            f"docker.io/{full(image)}",
        )


def full(image: str) -> str:
    """The name with the folder that official images have, as engines store it."""
    return image if "/" in image else f"library/{image}"
