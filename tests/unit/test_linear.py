"""The fast linear layers against the plain one."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from deployments.engines import linear
from deployments.engines.linear import Dense, Int8Dense, PrepackedDense, accelerate, quantise

ACTIVATIONS = [None, "gelu", "gelu_tanh", "relu"]


def made(kind: type[PrepackedDense | Int8Dense], dense: Dense) -> nn.Module:
    """As `accelerate` makes it here: where a CPU adds in 16 bits, with activations of 7."""
    ways: list[Any] = [kind] if kind is PrepackedDense else [kind, partial(kind, steps=127)]
    for make in ways:
        if linear._disagrees(make, dense.weight.dtype) is None:
            layer: nn.Module = make(dense)
            return layer
    pytest.skip(f"no {kind.__name__} in this build of torch, or on this CPU")


def dense(dtype: torch.dtype, activation: str | None = None, bias: bool = True) -> Dense:
    torch.manual_seed(0)
    weight = torch.randn(96, 64, dtype=dtype) / 8
    return Dense(weight, torch.randn(96, dtype=dtype) if bias else None, activation)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(
    ("kind", "dtype", "bound"),
    [
        (PrepackedDense, torch.float32, 1e-5),
        (PrepackedDense, torch.bfloat16, 0.04),
        (Int8Dense, torch.float32, 0.1),
    ],
)
def test_the_fast_layer_computes_what_the_plain_one_does(
    kind: Any, dtype: torch.dtype, bound: float, activation: str | None, bias: bool
) -> None:
    plain = dense(dtype, activation, bias)
    fast = made(kind, plain)
    x = torch.randn(33, 64, dtype=dtype)
    assert (fast(x).float() - plain(x).float()).abs().max() < bound
    if activation is None:
        residual = torch.randn(33, 96, dtype=dtype)
        assert (fast(x, residual).float() - plain(x, residual).float()).abs().max() < bound


def test_each_output_has_a_scale_of_its_own() -> None:
    """One scale for all weights would leave nothing of the small ones."""
    plain = dense(torch.float32, bias=False)
    plain.weight[1] *= 1e-4
    fast = made(Int8Dense, plain)
    x = torch.randn(8, 64)
    off = (fast(x) - plain(x)).abs().amax(0) / plain(x).abs().amax(0)
    assert off[1] < 0.05


def test_a_cpu_that_adds_in_16_bits_gets_activations_of_7(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """x86 without VNNI: two products of 255 × 127 do not fit. Played by a product that cuts off."""
    exact = linear.Int8Dense.forward

    def saturating(self: Int8Dense, x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        y = exact(self, x, *rest)
        return y if self._steps == 127 else y.clamp(-0.5, 0.5)

    monkeypatch.setattr(linear.Int8Dense, "forward", saturating)
    model = nn.Sequential(nn.Linear(64, 96))
    x = torch.randn(33, 64)
    expected = model(x)
    if not accelerate(model, "int8"):
        pytest.skip("no 8-bit products in this build of torch, or on this CPU")
    assert (model(x) - expected).abs().max() < 0.1
    assert quantise(x, 127)[0].max() <= 127


@given(st.lists(st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=1, max_size=50))
def test_quantised_values_are_near(values: list[float]) -> None:
    x = torch.tensor([values])
    q, scale, zero = quantise(x)
    assert q.dtype is torch.uint8
    back = scale * (q.double() - zero)
    np.testing.assert_allclose(back, x.double(), atol=scale * 1.01)


def test_quantising_without_torchs_deprecated_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(20, 30)
    expected, *_ = quantise(x)
    monkeypatch.delattr(torch, "quantize_per_tensor")
    got, *_ = quantise(x)
    assert (got.int() - expected.int()).abs().max() <= 1  # halves may round either way


def test_a_nan_is_not_quantised() -> None:
    with pytest.raises(ValueError, match="NaN"):
        quantise(torch.tensor([[1.0, float("nan")]]))


def test_every_linear_layer_is_replaced_and_its_weights_freed() -> None:
    model = nn.Sequential(nn.Linear(64, 96), nn.Sequential(nn.ReLU(), nn.Linear(96, 64)))
    x = torch.randn(5, 64)
    expected = model(x)
    if not accelerate(model, "float32"):
        pytest.skip("no prepacked products in this build of torch")
    assert not any(isinstance(module, nn.Linear | Dense) for module in model.modules())
    assert all(parameter.ndim == 1 for parameter in model.parameters())  # biases only
    torch.testing.assert_close(model(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_without_the_operators_layers_stay_plain_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, dtype: str
) -> None:
    def missing(*args: Any, **kwargs: Any) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(linear.PrepackedDense, "__init__", missing)
    monkeypatch.setattr(linear.Int8Dense, "__init__", missing)
    model = nn.Sequential(nn.Linear(8, 8))
    assert not accelerate(model, dtype)
    assert isinstance(model[0], nn.Linear)
    assert "linear layers stay plain" in caplog.text
