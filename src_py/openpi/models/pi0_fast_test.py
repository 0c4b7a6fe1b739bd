import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from openpi.models import model as _model
from openpi.models import pi0_fast
from openpi.shared import nnx_utils


@pytest.fixture(scope="module")
def model(fill: Callable, fast_sizes: pi0_fast.Pi0FASTConfig) -> pi0_fast.Pi0FAST:
    return fill(lambda: fast_sizes.create(jax.random.key(0)))


@pytest.fixture(scope="module")
def prompt(fast_sizes: pi0_fast.Pi0FASTConfig) -> _model.Observation:
    observation = fast_sizes.fake_obs(2)
    return observation.replace(
        tokenized_prompt=jnp.array([[2, 5, 7, 0, 0], [2, 9, 4, 3, 8]]),
        tokenized_prompt_mask=jnp.array([[True] * 3 + [False] * 2, [True] * 5]),
        token_ar_mask=jnp.zeros((2, 5), jnp.int32),
    )


@pytest.fixture(scope="module")
def sample(model: pi0_fast.Pi0FAST) -> Callable[..., jax.Array]:
    return nnx_utils.module_jit(model.sample_actions)


def test_decoding_reads_back_what_it_wrote(
    model: pi0_fast.Pi0FAST, sample: Callable[..., jax.Array], prompt: _model.Observation
) -> None:
    """The second token is the likeliest one after the prompt and the first token, in one pass without a cache."""
    tokens = sample(jax.random.key(0), prompt, max_decoding_steps=3)
    assert tokens.shape == (2, 3)
    assert tokens.dtype == jnp.float32
    one = jax.tree.map(lambda x: x[1:], prompt)
    embedded, mask, ar_mask = model.embed_inputs(one)
    first = model.PaliGemma.llm.embed(tokens[1:, :1].astype(jnp.int32))
    length = mask.shape[1]
    # One position is skipped before the first token, as published weights expect.
    positions = jnp.concatenate([jnp.arange(length), jnp.array([length + 1])])[None]
    attn_mask = pi0_fast.make_attn_mask(
        jnp.ones((1, length + 1), bool), jnp.concatenate([ar_mask, jnp.ones((1, 1), jnp.int32)], axis=1)
    )
    (outputs,), _ = model.PaliGemma.llm([jnp.concatenate([embedded, first], axis=1)], positions, attn_mask)
    assert int(jnp.argmax(model.PaliGemma.llm.embedder.decode(outputs[:, -1]))) == int(tokens[1, 1])


def test_decoding_as_trained_has_the_logits_of_the_loss(
    fill: Callable, fast_sizes: pi0_fast.Pi0FASTConfig, prompt: _model.Observation
) -> None:
    """With an image missing in the middle, prompts of two lengths, and answers that need not be the likeliest."""
    sizes = dataclasses.replace(fast_sizes, decode_as_trained=True)
    graphdef, params = nnx.split(fill(lambda: sizes.create(jax.random.key(0))))
    prompt = prompt.replace(image_masks=prompt.image_masks | {"base_1_rgb": jnp.array([False, True])})
    answers, lengths = jnp.array([[4, 6, 9], [7, 5, 4]]), jnp.array([[3], [5]])
    is_answer = (jnp.arange(8) >= lengths) & (jnp.arange(8) < lengths + 3)
    whole = prompt.replace(
        tokenized_prompt=jnp.array([[2, 5, 7, 4, 6, 9, 0, 0], [2, 9, 4, 3, 8, 7, 5, 4]]),
        tokenized_prompt_mask=jnp.arange(8) < lengths + 3,
        token_ar_mask=is_answer.astype(jnp.int32),
        token_loss_mask=is_answer,
    )

    @jax.jit
    def both(params: nnx.State) -> tuple[jax.Array, jax.Array]:
        model = nnx.merge(graphdef, params)
        in_the_loss = model.PaliGemma.llm.embedder.decode(model.prelogits(whole))
        state, mask = model.read_prefix(jax.random.key(0), prompt, 3)
        states = [state, *(state := model.advance(state, mask, token) for token in answers.T[:2])]
        before_answers = (lengths - 1 + jnp.arange(3))[..., None]
        return jnp.take_along_axis(in_the_loss, before_answers, axis=1), jnp.stack([s.logits for s in states], axis=1)

    in_the_loss, decoding = both(params)
    assert float(jnp.std(decoding)) > 0.1
    np.testing.assert_allclose(decoding, in_the_loss, atol=1e-5)


def test_length_of_decoding_through_keyword(sample: Callable[..., jax.Array], prompt: _model.Observation) -> None:
    short, long = (sample(jax.random.key(0), prompt, max_decoding_steps=steps) for steps in (3, 5))
    np.testing.assert_array_equal(long[:, :3], short)


def test_temperature_draws_by_the_key(sample: Callable[..., jax.Array], prompt: _model.Observation) -> None:
    keys = [jax.random.key(seed) for seed in range(4)]
    cold = [np.asarray(sample(key, prompt, max_decoding_steps=3, temperature=0.0)) for key in keys]
    hot = [np.asarray(sample(key, prompt, max_decoding_steps=3, temperature=50.0)) for key in keys]
    assert len({tokens.tobytes() for tokens in cold}) == 1
    assert len({tokens.tobytes() for tokens in hot}) == 4
    np.testing.assert_array_equal(sample(keys[1], prompt, max_decoding_steps=3, temperature=50.0), hot[1])


def test_loss_counts_only_tokens_in_the_loss_mask(model: pi0_fast.Pi0FAST, prompt: _model.Observation) -> None:
    loss = nnx_utils.module_jit(model.compute_loss)

    def of(mask: list[bool]) -> jax.Array:
        observation = prompt.replace(token_loss_mask=jnp.array([mask, mask]))
        return loss(jax.random.key(0), observation, jnp.zeros((2, 6, 3)))

    third, fourth = of([False, False, True, False, False]), of([False, False, False, True, False])
    np.testing.assert_allclose(of([False, False, True, True, False]), (third + fourth) / 2, rtol=1e-5)
    np.testing.assert_array_equal(of([True, False, False, False, False]), 0)  # nothing predicts the first token


@pytest.mark.parametrize("name", ["token_ar_mask", "tokenized_prompt"])
def test_missing_inputs_are_named(model: pi0_fast.Pi0FAST, prompt: _model.Observation, name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*TokenizeFASTInputs"):
        model.embed_inputs(prompt.replace(**{name: None}))


def test_put_along_last_axis() -> None:
    rng = np.random.default_rng(0)
    array, values = rng.normal(size=(3, 6)).astype(np.float32), rng.normal(size=(3, 2)).astype(np.float32)
    indices = np.array([[0, 5], [2, 1], [4, 3]])
    wanted = array.copy()
    np.put_along_axis(wanted, indices, values, axis=-1)
    got = pi0_fast.put_along_last_axis(*map(jnp.asarray, (array, indices, values)))
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def test_freeze_filter_and_size() -> None:
    config = pi0_fast.Pi0FASTConfig()
    shapes = nnx.state(nnx.eval_shape(config.create, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 2_923_335_408
    assert config.get_freeze_filter() is nnx.Nothing
    assert dataclasses.replace(config, paligemma_variant="gemma_2b_lora").get_freeze_filter() is not nnx.Nothing
    assert config.model_type is _model.ModelType.PI0_FAST
