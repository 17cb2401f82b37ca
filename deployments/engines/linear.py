"""Linear layers as fast as the CPU multiplies: weights laid out once, activation in the product.

oneDNN lays weights out anew for every call of `nn.Linear`; here that is done at load. The operators
are torch's own, those that its compiler emits; where this build of torch lacks them, or they
disagree with the plain product, the plain layer stays.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional

logger = logging.getLogger(__name__)

# What oneDNN chooses a weight's layout for. It multiplies other numbers of tokens as fast.
_LAYOUT_TOKENS = 256

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": functional.gelu,
    "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "relu": functional.relu,
}
# Name → operator and algorithm of oneDNN.
_FUSED = {
    None: ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}


class Dense(nn.Module):
    """`activation(x @ weight.T + bias) + residual`; one of the last two at most."""

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None, activation: str | None = None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.activation = activation

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        x = functional.linear(x, self.weight, self.bias)
        if self.activation is not None:
            x = ACTIVATIONS[self.activation](x)
        return x if residual is None else x + residual


class PrepackedDense(nn.Module):
    """`Dense` with weights in oneDNN's own layout. float32 or bfloat16, on a CPU."""

    def __init__(self, dense: Dense) -> None:
        super().__init__()
        self.out_features = len(dense.weight)
        self._weight = torch.ops.mkldnn._reorder_linear_weight(dense.weight.data, _LAYOUT_TOKENS)
        self.bias = dense.bias
        self._post_op, self._algorithm = _FUSED[dense.activation]

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        linear = torch.ops.mkldnn._linear_pointwise
        y: torch.Tensor
        if residual is None:
            y = linear(x, self._weight, self.bias, self._post_op, [], self._algorithm)
        else:
            y = linear.binary(x, residual, self._weight, self.bias, "add")
        return y


class Int8Dense(nn.Module):
    """`Dense` in 8 bits: weights per output, activations per call. float32 in and out, on a CPU.

    steps: of an activation. 127 where the CPU adds two products in 16 bits, which 255 × 127 twice
    would overflow: x86 without VNNI.
    """

    def __init__(self, dense: Dense, steps: int = 255) -> None:
        super().__init__()
        self._steps = steps
        weight = dense.weight.data.float()
        self._scales = weight.abs().amax(1).clamp(min=1e-12) / 127
        rounded = (weight / self._scales[:, None]).round().to(torch.int8)
        self._weight = torch.ops.onednn.qlinear_prepack(rounded, [_LAYOUT_TOKENS, weight.shape[1]])
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self.bias = dense.bias
        self._post_op, self._algorithm = _FUSED[dense.activation]

    def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
        shape = x.shape
        x, scale, zero = quantise(x.reshape(-1, shape[-1]).contiguous(), self._steps)
        weights = (self._weight, self._scales, self._zeros)
        linear = torch.ops.onednn.qlinear_pointwise
        y: torch.Tensor
        if residual is None:
            y = linear(
                x,
                scale,
                zero,
                *weights,
                self.bias,
                1.0,
                0,
                torch.float32,
                self._post_op,
                [],
                self._algorithm,
            )
        else:
            y = linear.binary(
                x,
                scale,
                zero,
                *weights,
                residual.reshape(len(x), -1),
                self.bias,
                1.0,
                0,
                torch.float32,
                1.0,
                0,
                "add",
                1.0,
                "none",
                [],
                "",
            )
        return y.view(*shape[:-1], y.shape[-1])


Make = Callable[[Dense], PrepackedDense | Int8Dense]


def quantise(x: torch.Tensor, steps: int = 255) -> tuple[torch.Tensor, float, int]:
    """x ≈ scale * (q - zero), q uint8 from 0 to `steps` over the whole range of a contiguous x.

    Returns (q, scale, zero).

    Raises:
        ValueError: x has a NaN.
    """
    low, high = (float(edge) for edge in x.aminmax())
    low, high = min(low, 0.0), max(high, 0.0)
    scale = max((high - low) / steps, 1e-30)
    zero = round(-low / scale)
    if hasattr(torch, "quantize_per_tensor"):
        # 5 times as fast as a cast, which isn't vectorised. Its storage is read as it lies, as
        # `int_repr` would copy it. Torch calls it deprecated, hence the branch below.
        storage = torch.quantize_per_tensor(x, scale, zero, torch.quint8).untyped_storage()
        return torch.empty(0, dtype=torch.uint8).set_(storage, 0, x.shape, x.stride()), scale, zero
    q = torch.add(torch.tensor(float(zero)), x, alpha=1 / scale).round_().clamp_(0, steps)
    return q.to(torch.uint8), scale, zero


def accelerate(module: nn.Module, dtype: str) -> bool:
    """Replaces the linear layers below `module`, on a CPU, by the fastest that computes the same.

    dtype: "float32", "bfloat16" (what the weights have) or "int8" (weights in float32). Returns
    whether it did: not where this torch or CPU can't, or there are none. The weights replaced are
    freed one by one. Subclasses and layers with hooks stay: what they compute is their own.
    """
    kind = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    ways: tuple[Make, ...] = (PrepackedDense,)
    if dtype == "int8":
        ways = (Int8Dense, partial(Int8Dense, steps=127))
    why_not = []
    for make in ways:
        if (reason := _disagrees(make, kind)) is None:
            break
        why_not.append(reason)
    else:
        logger.warning("linear layers stay plain: %s", "; ".join(dict.fromkeys(why_not)))
        return False
    # Parents only: a list of all modules would keep the old weights until the end.
    parents = [m for m in module.modules() if not isinstance(m, nn.Linear | Dense)]
    replaced = False
    for parent in parents:
        for name, child in parent.named_children():
            if type(child) is nn.Linear and not (child._forward_hooks or child._forward_pre_hooks):
                child = Dense(child.weight.data, None if child.bias is None else child.bias.data)
            if isinstance(child, Dense):
                setattr(parent, name, make(child))
                replaced = True
    return replaced


@torch.inference_mode()
def _disagrees(make: Make, dtype: torch.dtype) -> str | None:
    """Why the operators don't compute here what the plain layer does; None where they do."""
    random = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random).to(dtype)

    x, residual = normal(2, 5, 64), normal(2, 5, 32)
    exact = make is PrepackedDense and dtype is torch.float32
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")
            quantise(x.float().view(-1, 64))  # torch warns once, then never again
        for activation in (*ACTIVATIONS, None):
            plain = Dense(normal(32, 64) / 8, normal(32), activation)
            fast = make(plain)
            pairs = [(plain(x), fast(x))]
            if activation is None:
                pairs.append((plain(x, residual), fast(x, residual)))
            drift = max(float((a.float() - b.float()).abs().max()) for a, b in pairs)
            if not drift < (1e-4 if exact else 0.1):
                return f"off by {drift:.2g} with {activation}"
    except (AttributeError, RuntimeError, NotImplementedError) as exc:
        return f"this torch has no such operator ({type(exc).__name__})"
    return None
