"""The peers of the benchmark: each served in its own environment, from the same model directory.

`PEERS` says what there is; `running(peer, …)` serves one and stops it. One at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from deployments.bench.client import Endpoint

from .catalog import PEERS
from .environment import install
from .peer import SERVERS, Peer, PeerUnavailable, Run
from .process import environment_variables, server, wait_ready

__all__ = ["PEERS", "Peer", "PeerUnavailable", "running"]

START_TIMEOUT_S = 180.0


@contextmanager
def running(
    peer: Peer, *, model_dir: Path, dtype: str, num_threads: int, port: int
) -> Iterator[Endpoint]:
    """The endpoint of `peer`, ready; raises PeerUnavailable(reason) where it can't run.

    The reason is the peer's own: from pip's log, or from the server's, which lies in its folder.
    """
    if dtype not in peer.dtypes:
        raise PeerUnavailable(f"it offers {', '.join(peer.dtypes)}, not {dtype}")
    install(peer)
    files = peer.folder / "runs" / f"{peer.name}-{dtype}"
    files.mkdir(parents=True, exist_ok=True)
    run = Run(peer.bin, files, model_dir.resolve(), dtype, num_threads, port)
    env = {
        **environment_variables(run.bin, num_threads),
        "PYTHONPATH": str(SERVERS),
        "PEER_MODEL_DIR": str(run.model_dir),
        "PEER_DTYPE": dtype,
        "PEER_PORT": str(port),
        **peer.env(run),
    }
    log = files / "server.log"
    endpoint = peer.endpoint(port)
    command = peer.command(run)
    with ExitStack() as stack:
        try:
            process = stack.enter_context(server(command, env, log))
        except OSError as error:
            program = Path(command[0]).name
            raise PeerUnavailable(f"{program} can't be started: {error.strerror}") from error
        wait_ready(process, endpoint, log, START_TIMEOUT_S)
        yield endpoint
