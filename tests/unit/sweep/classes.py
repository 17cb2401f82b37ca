"""Every class of transformers' text classifiers, built small with random weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.pytorch_utils import Conv1D
from vocabularies import tokenizer_for

N_LABELS = 3
_TOO_LARGE = 3_000_000
# Whichever of these names a config has gets this value.
_SMALL: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers", "num_decoder_layers"), 1),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(
        ("intermediate_size", "d_ff", "hidden_dim", "ffn_dim", "d_inner", "n_inner"), 64
    ),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "feed_forward_size"), 64),
    **dict.fromkeys(("ffn_hidden_size",), 64),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "embedding_size"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"), 128),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    "num_key_value_heads": 1,
    "num_experts_per_tok": 2,
    "sliding_window": 32,
}
_DEEPSEEK = {
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "num_key_value_heads": 2,
    "n_group": 1,
    "topk_group": 1,
}
_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
# What one class wants beside, or otherwise.
_OWN: dict[str, dict[str, Any]] = {
    "axk1": _DEEPSEEK,
    "axk2": _DEEPSEEK,
    "big_bird": {"block_size": 4, "num_random_blocks": 1},
    "bigbird_pegasus": {"block_size": 4, "num_random_blocks": 1},
    "canine": {"num_hash_buckets": 64, "num_hash_functions": 2, "local_transformer_stride": 16},
    "cohere_compass_text": {
        "rope_parameters": {"full_attention": _ROPE, "sliding_attention": _ROPE}
    },
    "ctrl": {"dff": 64},
    "deepseek_v2": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "diffllama": {"num_key_value_heads": 2},
    "esmc": {"num_key_value_heads": 2},
    "flaubert": {"n_layers": 2},
    "funnel": {"block_sizes": [1, 1, 1]},
    "gptj": {"rotary_dim": 8},
    "layoutlmv3": {"coordinate_size": 5, "shape_size": 6},
    "lilt": {"hidden_size": 48},
    "minicpm3": _DEEPSEEK,
    "mistral4": _DEEPSEEK
    | {
        "head_dim": 16,
        "rope_parameters": _ROPE
        | {"original_max_position_embeddings": 128, "llama_4_scaling_beta": 0.1},
    },
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 32},
    "jamba": {
        "num_hidden_layers": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "layer_types": None,
    },
    "longformer": {"attention_window": 8},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "markuplm": {
        "max_xpath_tag_unit_embeddings": 8,
        "max_xpath_subs_unit_embeddings": 8,
        "tag_pad_id": 7,
        "subs_pad_id": 7,
        "xpath_unit_hidden_size": 8,
        "max_depth": 4,
    },
    "mobilebert": {"intra_bottleneck_size": 16, "true_hidden_size": 16, "embedding_size": 16},
    "perceiver": {"d_latents": 32, "num_latents": 8, "num_self_attends_per_block": 1},
    "reformer": {
        "axial_pos_shape": [8, 16],
        "axial_pos_embds_dim": [16, 16],
        "attn_layers": ["local", "lsh"],
        "attention_head_size": 16,
    },
    "roc_bert": {
        "pronunciation_vocab_size": 400,
        "shape_vocab_size": 400,
        "pronunciation_embed_dim": 16,
        "shape_embed_dim": 16,
    },
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "t5": {"decoder_start_token_id": 0},
    "zamba": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
    },
    "zamba2": {"num_hidden_layers": 2, "layers_block_type": ["linear_attention", "hybrid"]},
    "squeezebert": {"embedding_size": 32, "q_groups": 1, "k_groups": 1, "v_groups": 1},
}


class CannotBuild(Exception):
    """The class can't be built small here. The message says why."""


def build(model_type: str, directory: Path) -> type[Any]:
    """Saves a small random model of this type with a tokenizer of its usual kind; its class.

    Raises:
        CannotBuild: its config has parts that this can't shrink, or it needs other packages.
    """
    tokenizer = tokenizer_for(model_type)
    try:
        config = _config(model_type, tokenizer)
        with torch.device("meta"):
            n_weights = AutoModelForSequenceClassification.from_config(config).num_parameters()
        if n_weights > _TOO_LARGE:
            raise CannotBuild("its config has parts beside the text's, which can't be made small")
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(config).eval()
    except ImportError as exc:
        raise CannotBuild("it needs a package that is not among this project's") from exc
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, RuntimeError) as exc:
        raise CannotBuild(f"its config can't be made small ({type(exc).__name__})") from exc
    _fill(model)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return type(model)


def _config(model_type: str, tokenizer: Any) -> Any:
    make = CONFIG_MAPPING[model_type]
    values = _shrunk(make().to_dict(), len(tokenizer)) | _OWN.get(model_type, {})
    values = {name: value for name, value in values.items() if value is not None}
    marks = {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    for part in values.values():
        if isinstance(part, dict) and "vocab_size" in part:
            part.update(marks)
    return make(**{**values, **marks, "num_labels": N_LABELS})


def _shrunk(defaults: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    """What of a config, and of the configs inside it, is to be smaller."""
    values = {name: value for name, value in _SMALL.items() if name in defaults}
    if "vocab_size" in defaults:
        values["vocab_size"] = vocab_size
    if isinstance(defaults.get("layer_types"), list):
        kinds = list(dict.fromkeys(defaults["layer_types"]))  # one layer of each, if there is room
        values["layer_types"] = (kinds * 2)[: values.get("num_hidden_layers", 2)]
    for name, part in defaults.items():
        if isinstance(part, dict) and "model_type" in part:
            kept = {key: part[key] for key in ("model_type",)}
            values[name] = kept | _shrunk(part, vocab_size)
    return values


@torch.no_grad()
def _fill(model: Any) -> None:
    """Weights of the size that training gives: at a class's own beginnings texts hardly differ."""
    for module in model.modules():
        if isinstance(module, nn.Linear | Conv1D):
            fan_in = module.weight.shape[0 if isinstance(module, Conv1D) else 1]
            module.weight.normal_(std=1 / math.sqrt(fan_in))
            if module.bias is not None:
                module.bias.normal_(std=0.1)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(std=0.5)
            if module.padding_idx is not None:
                module.weight[module.padding_idx] = 0
