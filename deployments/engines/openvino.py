"""OpenVINO on the CPU: float32, bfloat16, or int8 quantised by NNCF."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deployments.engines.base import EngineUnavailable
from deployments.engines.graph import (
    GraphEngine,
    Rows,
    Runner,
    check_conversion,
    example_rows,
)
from deployments.pipeline.types import Float32

logger = logging.getLogger(__name__)

# OpenVINO and NNCF tell their maker about every conversion where this package can be imported. A
# service with other people's texts calls nobody; without it both keep quiet.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

_GRAPH = "model.xml"
_MAX_KERNELS = 1_000


class OpenVinoEngine(GraphEngine):
    """The model as an OpenVINO graph; see `GraphEngine`."""

    name = "openvino"
    modules = ("openvino",)
    int8_modules = ("nncf",)
    dtypes = ("float32", "bfloat16", "int8")
    overhead_tokens = 64
    max_group_tokens = 512

    def convert(self, model: Any, max_length: int, directory: Path) -> None:
        import openvino
        import torch

        example = {k: torch.from_numpy(v) for k, v in example_rows(model, (2, 7)).items()}
        graph = openvino.convert_model(model, example_input=example)
        compiled = openvino.Core().compile_model(graph, "CPU", self._config("f32", num_streams=1))
        check_conversion(model, max_length, lambda rows: compiled(rows)[0])
        if self.dtype == "int8":
            graph = self._quantised(graph)
        openvino.save_model(graph, directory / _GRAPH, compress_to_fp16=False)

    def open_runner(self, directory: Path) -> Runner:
        import openvino

        core = openvino.Core()
        has_bfloat16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if self.dtype == "bfloat16" and not has_bfloat16:
            raise EngineUnavailable(
                "args.engine.dtype is bfloat16, which this CPU can't multiply. "
                "Set dtype: float32 or int8."
            )
        # Between int8 products: softmax, norms and the like.
        precision = "f32" if self.dtype == "float32" or not has_bfloat16 else "bf16"
        return _OpenVinoRunner(core, directory / _GRAPH, self._config, precision, self.num_threads)

    def _config(self, precision: str, num_streams: int) -> dict[str, Any]:
        return {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": self.num_threads,
            "NUM_STREAMS": num_streams,
            # Replicas on one node would all pin their threads to the same first cores.
            "ENABLE_CPU_PINNING": False,
            # Compiled kernels are kept by shape, 5,000 of them by default, and a Classifier met new
            # shapes for hours: +198 MiB/h (docs/log.md).
            "CPU_RUNTIME_CACHE_CAPACITY": _MAX_KERNELS,
        }

    def _quantised(self, graph: Any) -> Any:
        # NNCF draws progress bars on stdout, and makes its logger class everybody's.
        logger_class = logging.getLoggerClass()
        with contextlib.redirect_stdout(io.StringIO()):
            import nncf

            logging.setLoggerClass(logger_class)
            # Not nncf.set_log_level: it sets every handler that stands there, whoever put it.
            logging.getLogger("nncf").setLevel(logging.ERROR)
            names = {port.any_name for port in graph.inputs}
            rows = [
                {name: values for name, values in row.items() if name in names}
                for row in self.calibration_rows()
            ]
            # Without SmoothQuant the demo model's logits drift a third as far on unseen reviews.
            no_smoothing = nncf.AdvancedSmoothQuantParameters(matmul=-1)
            return nncf.quantize(
                graph,
                nncf.Dataset(rows),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(rows),
                advanced_parameters=nncf.AdvancedQuantizationParameters(
                    smooth_quant_alphas=no_smoothing
                ),
            )


class _OpenVinoRunner:
    """One stream on all threads where there is one group; else as many streams as threads."""

    def __init__(
        self, core: Any, path: Path, config: Any, precision: str, num_threads: int
    ) -> None:
        self._alone = core.compile_model(path, "CPU", config(precision, num_streams=1))
        self.input_names = frozenset(port.any_name for port in self._alone.inputs)
        self._request = self._alone.create_infer_request()
        self._num_threads = num_threads
        self._compile_many = partial(
            core.compile_model, path, "CPU", config(precision, num_streams=num_threads)
        )
        self._broken: list[Any] = []
        self._queue = self._new_queue() if num_threads > 1 else None

    def run(self, groups: Sequence[Rows]) -> list[Float32]:
        feeds = [{k: v for k, v in rows.items() if k in self.input_names} for rows in groups]
        if len(feeds) == 1 or self._queue is None:
            return [_logits(self._infer(feed)) for feed in feeds]
        answers: dict[int, Float32] = {}
        try:
            for i, feed in enumerate(feeds):
                self._queue.start_async(feed, (answers, i))
            self._queue.wait_all()
            return [answers[i] for i in range(len(feeds))]
        except Exception:
            # A run that failed leaves the compiled model's streams behind so that later ones fail
            # too, or never end. It is kept: its end would wait for runs whose callbacks need the
            # lock that the end holds.
            logger.warning("openvino failed: the model is compiled again")
            self._broken.append(self._queue)
            self._queue = self._new_queue()
            raise

    def _new_queue(self) -> Any:
        import openvino

        queue = openvino.AsyncInferQueue(self._compile_many(), self._num_threads)
        queue.set_callback(self._keep)
        return queue

    def _infer(self, feed: Rows) -> Any:
        self._request.infer(feed, share_inputs=True)
        return self._request

    @staticmethod
    def _keep(request: Any, userdata: tuple[dict[int, Float32], int]) -> None:
        answers, i = userdata
        answers[i] = _logits(request)


def _logits(request: Any) -> Float32:
    # A copy: the next inference writes into the same memory.
    return np.array(request.get_output_tensor(0).data, np.float32)
