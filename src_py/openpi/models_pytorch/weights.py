"""Weights of the PyTorch models: reading `model.safetensors`, and turning JAX parameters into a state dict."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from flax import traverse_util
from torch import nn

Op: TypeAlias = Callable[[np.ndarray], np.ndarray]

_VISION = "paligemma_with_expert.paligemma.model.vision_tower.vision_model"
_PROJECTOR = "paligemma_with_expert.paligemma.model.multi_modal_projector.linear"
_EXPERTS = {
    "": "paligemma_with_expert.paligemma.model.language_model",
    "_1": "paligemma_with_expert.gemma_expert.model",
}
# Published files leave these out: one is tied to the token table, the other is never used.
_MAY_BE_MISSING = {
    "paligemma_with_expert.paligemma.lm_head.weight",
    "paligemma_with_expert.gemma_expert.lm_head.weight",
}


def load_safetensors(model: nn.Module, path: str | Path) -> None:
    """Read a `model.safetensors` file into the model, in place.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: parameters are missing, not expected or of other shapes; the message lists them.
    """
    import safetensors.torch

    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {path}; give a checkpoint's model.safetensors.")
    load_state_dict(model, safetensors.torch.load_file(path))


def load_state_dict(model: nn.Module, state_dict: dict[str, torch.Tensor]) -> None:
    """`model.load_state_dict` that allows for the missing output heads and lists all that does not fit.

    Raises:
        ValueError: parameters are missing, not expected or of other shapes.
    """
    expected = model.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in state_dict and name not in _MAY_BE_MISSING]
    problems += [f"{name} is not expected" for name in state_dict if name not in expected]
    problems += [
        f"{name} has shape {tuple(state_dict[name].shape)} instead of {tuple(value.shape)}"
        for name, value in expected.items()
        if name in state_dict and state_dict[name].shape != value.shape
    ]
    if problems:
        raise ValueError(f"The weights do not fit the model in {len(problems)} places:\n  " + "\n  ".join(problems))
    model.load_state_dict(state_dict, strict=False)


def state_dict_from_jax(params: dict[str, Any]) -> dict[str, np.ndarray]:
    """The PyTorch model's state dict from the JAX model's parameters (nested dicts), in their dtype.

    Raises:
        ValueError: a parameter has no place in the PyTorch model (LoRA, pi0-FAST's heads, unknown names).
    """
    flat = {path: np.asarray(value) for path, value in traverse_util.flatten_dict(params, sep="/").items()}
    state: dict[str, np.ndarray] = {}
    for path, value in flat.items():
        converted = _convert(path, value)
        if not converted:
            raise ValueError(f"The JAX parameter {path} has no place in the PyTorch model.")
        state |= converted
    return {name: np.ascontiguousarray(value) for name, value in state.items()}


def _convert(path: str, value: np.ndarray) -> dict[str, np.ndarray]:
    for rule in (_vision, _language, _projection):
        if converted := rule(path, value):
            return converted
    return {}


def _transpose(x: np.ndarray) -> np.ndarray:
    return x.T


def _same(x: np.ndarray) -> np.ndarray:
    return x


def _heads_in(x: np.ndarray) -> np.ndarray:
    """[width, heads, head_dim] -> [heads * head_dim, width]."""
    return x.reshape(x.shape[0], -1).T


def _heads_out(x: np.ndarray) -> np.ndarray:
    """[heads, head_dim, width] -> [width, heads * head_dim]."""
    return x.reshape(-1, x.shape[-1]).T


def _merge_heads(x: np.ndarray) -> np.ndarray:
    """[heads, width, head_dim] -> [heads * head_dim, width]."""
    return x.transpose(0, 2, 1).reshape(-1, x.shape[1])


_VISION_WHOLE: dict[str, tuple[str, Op]] = {
    "embedding/kernel": (f"{_VISION}.embeddings.patch_embedding.weight", lambda x: x.transpose(3, 2, 0, 1)),
    "embedding/bias": (f"{_VISION}.embeddings.patch_embedding.bias", _same),
    "pos_embedding": (f"{_VISION}.embeddings.position_embedding.weight", lambda x: x[0]),
    "Transformer/encoder_norm/scale": (f"{_VISION}.post_layernorm.weight", _same),
    "Transformer/encoder_norm/bias": (f"{_VISION}.post_layernorm.bias", _same),
    "head/kernel": (f"{_PROJECTOR}.weight", _transpose),
    "head/bias": (f"{_PROJECTOR}.bias", _same),
}
_ATTENTION = "MultiHeadDotProductAttention_0"
_VISION_LAYER: dict[str, tuple[str, Op]] = {
    **{f"LayerNorm_{i}/scale": (f"layer_norm{i + 1}.weight", _same) for i in (0, 1)},
    **{f"LayerNorm_{i}/bias": (f"layer_norm{i + 1}.bias", _same) for i in (0, 1)},
    **{f"MlpBlock_0/Dense_{i}/kernel": (f"mlp.fc{i + 1}.weight", _transpose) for i in (0, 1)},
    **{f"MlpBlock_0/Dense_{i}/bias": (f"mlp.fc{i + 1}.bias", _same) for i in (0, 1)},
    **{f"{_ATTENTION}/{n}/kernel": (f"self_attn.{n[0]}_proj.weight", _heads_in) for n in ("query", "key", "value")},
    **{f"{_ATTENTION}/{n}/bias": (f"self_attn.{n[0]}_proj.bias", np.ravel) for n in ("query", "key", "value")},
    f"{_ATTENTION}/out/kernel": ("self_attn.out_proj.weight", _heads_out),
    f"{_ATTENTION}/out/bias": ("self_attn.out_proj.bias", _same),
}
_NORMS = {"pre_attention_norm": "input_layernorm", "pre_ffw_norm": "post_attention_layernorm"}
_LANGUAGE_LAYER: dict[str, list[tuple[str, Op]]] = {
    "attn/q_einsum{e}/w": [("self_attn.q_proj.weight", _merge_heads)],
    "attn/kv_einsum{e}/w": [
        ("self_attn.k_proj.weight", lambda x: _merge_heads(x[0])),
        ("self_attn.v_proj.weight", lambda x: _merge_heads(x[1])),
    ],
    "attn/qkv_einsum{e}/w": [
        ("self_attn.q_proj.weight", lambda x: _merge_heads(x[0])),
        ("self_attn.k_proj.weight", lambda x: _merge_heads(x[1])),
        ("self_attn.v_proj.weight", lambda x: _merge_heads(x[2])),
    ],
    "attn/attn_vec_einsum{e}/w": [("self_attn.o_proj.weight", _heads_out)],
    "mlp{e}/gating_einsum": [("mlp.gate_proj.weight", lambda x: x[0].T), ("mlp.up_proj.weight", lambda x: x[1].T)],
    "mlp{e}/linear": [("mlp.down_proj.weight", _transpose)],
    **{f"{jax}{{e}}/scale": [(f"{torch_}.weight", _same)] for jax, torch_ in _NORMS.items()},
    **{f"{jax}{{e}}/Dense_0/kernel": [(f"{torch_}.dense.weight", _transpose)] for jax, torch_ in _NORMS.items()},
    **{f"{jax}{{e}}/Dense_0/bias": [(f"{torch_}.dense.bias", _same)] for jax, torch_ in _NORMS.items()},
}
_FINAL_NORM: dict[str, tuple[str, Op]] = {
    "final_norm{e}/scale": ("norm.weight", _same),
    "final_norm{e}/Dense_0/kernel": ("norm.dense.weight", _transpose),
    "final_norm{e}/Dense_0/bias": ("norm.dense.bias", _same),
}


def _vision(path: str, value: np.ndarray) -> dict[str, np.ndarray]:
    name = path.removeprefix("PaliGemma/img/")
    if name in _VISION_WHOLE:
        torch_name, op = _VISION_WHOLE[name]
        return {torch_name: op(value)}
    if (inner := name.removeprefix("Transformer/encoderblock/")) in _VISION_LAYER:
        torch_name, op = _VISION_LAYER[inner]
        return {f"{_VISION}.encoder.layers.{i}.{torch_name}": op(layer) for i, layer in enumerate(value)}
    return {}


def _language(path: str, value: np.ndarray) -> dict[str, np.ndarray]:
    if path == "PaliGemma/llm/embedder/input_embedding":
        return {f"{_EXPERTS['']}.embed_tokens.weight": value}
    for suffix, expert in _EXPERTS.items():
        for pattern, (torch_name, op) in _FINAL_NORM.items():
            if path == "PaliGemma/llm/" + pattern.format(e=suffix):
                return {f"{expert}.{torch_name}": op(value)}
        for pattern, parts in _LANGUAGE_LAYER.items():
            if path == "PaliGemma/llm/layers/" + pattern.format(e=suffix):
                return {
                    f"{expert}.layers.{i}.{torch_name}": op(layer)
                    for i, layer in enumerate(value)
                    for torch_name, op in parts
                }
    return {}


def _projection(path: str, value: np.ndarray) -> dict[str, np.ndarray]:
    module, _, kind = path.partition("/")
    if module.endswith(("_proj", "_mlp_in", "_mlp_out")) and kind in ("kernel", "bias"):
        return {f"{module}.weight": value.T} if kind == "kernel" else {f"{module}.bias": value}
    return {}
