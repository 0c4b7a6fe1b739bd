"""Our model's outputs, under the names that golden vectors have for them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from openpi.golden.folder import GoldenFolder
from openpi.models import model as _model
from openpi.models import pi0, pi0_fast
from openpi.shared import array_typing as at
from openpi.shared import nnx_utils

# The single forward pass of the flow models: at this time, with the noise as the noisy actions.
_FORWARD_TIME = 0.7

Outputs = dict[str, Any]


def compute(folder: GoldenFolder, precision: str) -> Outputs:
    """All outputs that the folder's kind of model has.

    Tokens of pi0-FAST that follow from a choice between near-equal logits cannot be compared in bfloat16. So its
    steps are fed the golden tokens, and next to "X_tokens" there is "X_regret": how much better the best token's score
    was than the golden one's.
    """
    model = folder.model(precision)
    if isinstance(model, pi0_fast.Pi0FAST):
        return _token_outputs(model, folder, precision)
    return _flow_outputs(model, folder)


def _flow_outputs(model: pi0.Pi0, folder: GoldenFolder) -> Outputs:
    observation, rng = folder.observation(), folder.rng
    actions, noise = (jnp.asarray(folder.inputs[name]) for name in ("actions", "noise"))
    sample = nnx_utils.module_jit(model.sample_actions)
    _, noise_rng, time_rng = jax.random.split(rng, 3)
    return {
        **{f"fwd/{name}": value for name, value in nnx.jit(_forward)(model, observation, noise).items()},
        "loss": nnx_utils.module_jit(model.compute_loss)(rng, observation, actions),
        "loss_noise": jax.random.normal(noise_rng, actions.shape),
        "loss_time": jax.random.beta(time_rng, 1.5, 1, actions.shape[:1]) * 0.999 + 0.001,
        "sample_10": sample(rng, observation, noise=noise),
        "sample_4": sample(rng, observation, noise=noise, num_steps=4),
        "sample_default_rng": sample(rng, observation),
    }


def _forward(model: pi0.Pi0, observation: _model.Observation, noisy_actions: at.Array) -> Outputs:
    """Inside of one joint pass of both experts, and the cache of the prefix alone."""
    observation = _model.preprocess_observation(None, observation, image_resolution=model.image_resolution)
    tokens, mask, ar_mask = model.embed_prefix(observation)
    suffix = model.embed_suffix(observation, noisy_actions, jnp.full(noisy_actions.shape[0], _FORWARD_TIME))
    input_mask = jnp.concatenate([mask, suffix.mask], axis=1)
    attn_mask = pi0.make_attn_mask(input_mask, jnp.concatenate([ar_mask, suffix.ar_mask]))
    positions = jnp.cumsum(input_mask, axis=1) - 1
    embedded, conds = [tokens, suffix.tokens], [None, suffix.adarms_cond]
    (prefix_out, suffix_out), _ = model.PaliGemma.llm(embedded, positions, attn_mask, conds)
    keys, values = model.read_prefix(observation).kv_cache
    outputs = {
        "prefix_tokens": tokens,
        "prefix_mask": mask,
        "prefix_ar_mask": ar_mask,
        "suffix_tokens": suffix.tokens,
        "suffix_mask": suffix.mask,
        "suffix_ar_mask": suffix.ar_mask,
        "adarms_cond": suffix.adarms_cond,
        "attn_mask": attn_mask,
        "positions": positions,
        "prefix_out": prefix_out,
        "suffix_out": suffix_out,
        "v_t": model.project_actions(suffix_out),
        **{f"kv_{name}_first": cache[0] for name, cache in (("k", keys), ("v", values))},
        **{f"kv_{name}_last": cache[-1] for name, cache in (("k", keys), ("v", values))},
    }
    return {name: value for name, value in outputs.items() if value is not None}


def _token_outputs(model: pi0_fast.Pi0FAST, folder: GoldenFolder, precision: str) -> Outputs:
    observation, prompt = folder.observation(), folder.observation(sampling=True)
    golden = folder.outputs(precision)
    outputs = {
        "loss": nnx_utils.module_jit(model.compute_loss)(
            folder.rng, observation, jnp.asarray(folder.inputs["actions"])
        ),
        **{f"train/{name}": value for name, value in nnx.jit(_train_logits)(model, observation).items()},
        **{f"decode/{name}": value for name, value in nnx.jit(_inputs)(model, prompt).items()},
    }
    greedy = _follow(model, folder, golden["sample_tokens"], temperature=0.0)
    top = jax.lax.top_k(greedy["logits"].astype(jnp.float32), 2)[0]
    outputs |= {
        "decode/prefix_last_logits": greedy["logits"][:, 0],
        "decode/step_logits": greedy["logits"],
        "decode/step_regret": greedy["regret"],
        "sample_regret": greedy["regret"],
        "step_top2_margin": top[..., 0] - top[..., 1],
    }
    if "sample_tokens_temp1" in golden:
        drawn = _follow(model, folder, golden["sample_tokens_temp1"], temperature=1.0)
        outputs["sample_regret_temp1"] = drawn["regret"]
    return outputs | (_sampled_tokens(model, folder, golden) if precision == "f32" else {})


def _train_logits(model: pi0_fast.Pi0FAST, observation: _model.Observation) -> Outputs:
    prelogits = model.prelogits(_with_own_cameras(model, observation))
    return {"prelogits_text": prelogits, "logits_text": model.PaliGemma.llm.embedder.decode(prelogits)}


def _inputs(model: pi0_fast.Pi0FAST, prompt: _model.Observation) -> Outputs:
    tokens, mask, ar_mask = model.embed_inputs(_with_own_cameras(model, prompt))
    _, aligned, _ = pi0_fast.left_to_right_align(tokens, mask, pi0_fast.make_attn_mask(mask, ar_mask))
    return {
        "embed": tokens,
        "input_mask": mask,
        "ar_mask": ar_mask,
        "aligned_mask": aligned,
        "aligned_positions": jnp.cumsum(aligned, axis=-1) - 1,
        "prefill_len": jnp.sum(mask, axis=-1),
    }


def _with_own_cameras(model: pi0_fast.Pi0FAST, observation: _model.Observation) -> _model.Observation:
    return _model.preprocess_observation(
        None, observation, image_keys=list(observation.images), image_resolution=model.image_resolution
    )


def _follow(model: pi0_fast.Pi0FAST, folder: GoldenFolder, tokens: np.ndarray, temperature: float) -> Outputs:
    """Logits of every step along the given tokens, and by how much another token would have won."""

    def run(model: pi0_fast.Pi0FAST, prompt: _model.Observation, tokens: at.Array) -> Outputs:
        start, prefix_mask = model.read_prefix(folder.rng, prompt, tokens.shape[1])

        def step(state: pi0_fast.Decoding, token: at.Array) -> tuple[pi0_fast.Decoding, Outputs]:
            scores = state.logits
            if temperature > 0:
                # Drawing a token is taking the best after adding this noise.
                draw_rng = jax.random.split(state.rng)[1]
                scores = scores / temperature + jax.random.gumbel(draw_rng, scores.shape, scores.dtype)
            chosen = jnp.take_along_axis(scores, token[:, None], axis=-1)[:, 0]
            step_outputs = {"logits": state.logits, "regret": jnp.max(scores, axis=-1) - chosen}
            return model.advance(state, prefix_mask, token), step_outputs

        _, outputs = jax.lax.scan(step, start, tokens.T)
        return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), outputs)

    return nnx.jit(run)(model, folder.observation(sampling=True), jnp.asarray(tokens, jnp.int32))


def _sampled_tokens(model: pi0_fast.Pi0FAST, folder: GoldenFolder, golden: dict[str, np.ndarray]) -> Outputs:
    prompt, steps = folder.observation(sampling=True), golden["sample_tokens"].shape[1]
    sample = nnx_utils.module_jit(model.sample_actions)
    tokens = sample(folder.rng, prompt, max_decoding_steps=steps)
    outputs = {
        "sample_tokens": tokens,
        "decode/step_tokens": tokens,
        "sample_tokens_temp1": sample(folder.rng, prompt, max_decoding_steps=steps, temperature=1.0),
    }
    if "eos_case" in folder.meta:
        swapped = folder.meta["eos_case"]["swapped_embedding_rows"]
        table = model.PaliGemma.llm.embedder.input_embedding
        table[...] = table[...].at[jnp.array(swapped)].set(table[...][jnp.array(swapped[::-1])])
        sample = nnx_utils.module_jit(model.sample_actions)
        first_only = jax.tree.map(lambda x: x[:1], prompt)
        outputs["eos/tokens_all"] = sample(folder.rng, prompt, max_decoding_steps=steps)
        outputs["eos/tokens_first_only"] = sample(folder.rng, first_only, max_decoding_steps=steps)
    return outputs
