"""ONNX Runtime on the CPU: float32, or int8 with activations quantised as they come."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from deployments.engines.cpu import cpu_features
from deployments.engines.graph import (
    GraphEngine,
    Rows,
    Runner,
    check_conversion,
    example_rows,
)
from deployments.pipeline.types import Float32

_GRAPH = "model.onnx"
_OPSET = 17  # the first with LayerNormalization as one operator


class OnnxRuntimeEngine(GraphEngine):
    """The model as an ONNX graph; see `GraphEngine`."""

    name = "onnxruntime"
    modules = ("onnxruntime", "onnx")
    int8_modules = ()
    dtypes = ("float32", "int8")
    overhead_tokens = 64
    max_group_tokens = 512

    def convert(self, model: Any, max_length: int, directory: Path) -> None:
        import torch

        example = {k: torch.from_numpy(v) for k, v in example_rows(model, (2, 7)).items()}
        exact = directory / ("float32.onnx" if self.dtype == "int8" else _GRAPH)
        with redirect_stdout(io.StringIO()):
            # Not `dynamo=True`: the same graph, but 30 to 80 s where this takes 2.
            torch.onnx.export(
                model,
                (),
                exact,
                kwargs=example,
                dynamo=False,
                opset_version=_OPSET,
                input_names=list(example),
                output_names=["logits"],
                dynamic_axes={name: {0: "texts", 1: "tokens"} for name in example},
            )
        runner = _OnnxRuntimeRunner(exact, 1)
        check_conversion(model, max_length, lambda rows: runner.run([rows])[0])
        if self.dtype == "int8":
            _quantise(exact, directory / _GRAPH)
            for path in set(directory.iterdir()) - {directory / _GRAPH}:
                path.unlink()

    def open_runner(self, directory: Path) -> Runner:
        return _OnnxRuntimeRunner(directory / _GRAPH, self.num_threads)


class _OnnxRuntimeRunner:
    """One group at a time on all threads where there is one; else one group on each thread."""

    def __init__(self, path: Path, num_threads: int) -> None:
        self._alone = _session(path, num_threads)
        self.input_names = frozenset(port.name for port in self._alone.get_inputs())
        self._many = self._threads = None
        if num_threads > 1:
            self._many = _session(path, 1)
            self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="onnxruntime")

    def run(self, groups: Sequence[Rows]) -> list[Float32]:
        feeds = [{k: v for k, v in rows.items() if k in self.input_names} for rows in groups]
        if len(feeds) == 1 or self._many is None or self._threads is None:
            return [self._alone.run(None, feed)[0] for feed in feeds]
        many = self._many
        return list(self._threads.map(lambda feed: many.run(None, feed)[0], feeds))


def _session(path: Path, num_threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # warnings are about the graph, which nobody can change
    # Idle threads that spin take the cores of the other stages.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _quantise(exact: Path, quantised: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    # Pairs of 8-bit products overflow 16 bits on x86 before VNNI: 7 bits for weights there.
    features = set(cpu_features())
    overflows = "avx2" in features and not features & {"avx_vnni", "avx512_vnni"}
    quantize_dynamic(
        exact,
        quantised,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        reduce_range=overflows,
        weight_type=QuantType.QInt8,
    )
