"""The Python environment of a peer: made on demand, kept until its requirements change."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import venv

from .peer import Peer, PeerUnavailable
from .process import reason

INSTALL_TIMEOUT_S = 1800


def install(peer: Peer) -> None:
    """Makes the peer's environment unless it is there.

    RAYCLASSIFY_BENCH_PIP_ARGS: more arguments for pip, e.g. the index of another build of torch.
    Raises PeerUnavailable with pip's own words.
    """
    if not peer.requirements:
        return
    stamp = peer.folder / "requirements.txt"
    wanted = "\n".join(peer.requirements) + "\n"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    peer.folder.mkdir(parents=True, exist_ok=True)
    print(f"{peer.title}: installing {', '.join(peer.requirements)} (minutes)", flush=True)
    if not peer.bin.exists():
        venv.create(peer.folder, symlinks=True)
    log = peer.folder / "pip.log"
    with log.open("wb") as out:
        try:
            run = subprocess.run(
                pip_command(peer), stdout=out, stderr=out, timeout=INSTALL_TIMEOUT_S
            )
        except subprocess.TimeoutExpired as late:
            raise PeerUnavailable(f"pip took over {INSTALL_TIMEOUT_S} s to install it") from late
    if run.returncode != 0:
        raise PeerUnavailable(f"pip can't install it: {reason(log)}")
    stamp.write_text(wanted, encoding="utf-8")


def pip_command(peer: Peer) -> list[str]:
    more = shlex.split(os.environ.get("RAYCLASSIFY_BENCH_PIP_ARGS", ""))
    # Our pip, told where to install: spares every peer a pip of its own.
    pip = [sys.executable, "-m", "pip", "--python", str(peer.bin / "python")]
    return [*pip, "install", *more, *peer.requirements]
