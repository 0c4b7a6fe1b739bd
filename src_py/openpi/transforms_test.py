import dataclasses

import numpy as np
import pytest

from openpi import transforms


def stats(dim: int, **kwargs) -> transforms.NormStats:
    one = np.ones(dim)
    return transforms.NormStats(**{"mean": 2 * one, "std": 4 * one, "q01": -one, "q99": 3 * one, **kwargs})


def test_repack_names_the_missing_key_and_those_there_are():
    repack = transforms.RepackTransform({"images": {"cam_high": "observation.images.top"}})
    with pytest.raises(KeyError, match=r"observation\.images\.top.*'observation\.images\.front', 'state'"):
        repack({"observation.images.front": 1, "state": 2})


def test_repack_reaches_into_nested_samples_and_drops_the_rest():
    repack = transforms.RepackTransform({"state": "observation/state", "images": {"cam": "observation/images/top"}})
    data = {"observation": {"state": 1, "images": {"top": 2}, "other": 3}, "action": 4}
    assert repack(data) == {"images": {"cam": 2}, "state": 1}


def test_group_pushes_towards_the_model():
    group = transforms.Group(inputs=["a"], outputs=["a'"]).push(inputs=["b"], outputs=["b'"])
    assert group == transforms.Group(inputs=("a", "b"), outputs=("b'", "a'"))
    assert dataclasses.is_dataclass(group)


def test_compose_applies_in_order_and_says_where_an_error_arose():
    add = transforms.compose([lambda data: {**data, "x": data["x"] + 1}, lambda data: {**data, "x": data["x"] * 2}])
    assert add({"x": 1}) == {"x": 4}
    with pytest.raises(ValueError, match="prompt") as caught:
        transforms.compose([transforms.TokenizePrompt(None)])({})
    assert "TokenizePrompt" in caught.value.__notes__[0]


def test_default_prompt_does_not_replace_one():
    inject = transforms.InjectDefaultPrompt("fold")
    assert inject({})["prompt"].item() == "fold"
    assert inject({"prompt": "open"}) == {"prompt": "open"}
    assert transforms.InjectDefaultPrompt(None)({}) == {}


@pytest.mark.parametrize("quantiles", [False, True])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
def test_unnormalize_undoes_normalize(quantiles, shape):
    rng = np.random.default_rng(0)
    norm_stats = {"state": stats(5), "nested/actions": stats(5)}
    data = {"state": rng.normal(size=shape), "nested": {"actions": rng.normal(size=shape)}, "other": "kept"}
    normalized = transforms.Normalize(norm_stats, quantiles)(data)
    assert not np.allclose(normalized["nested"]["actions"], data["nested"]["actions"])
    restored = transforms.Unnormalize(norm_stats, quantiles)(normalized)
    np.testing.assert_allclose(restored["state"], data["state"], atol=1e-12)
    np.testing.assert_allclose(restored["nested"]["actions"], data["nested"]["actions"], atol=1e-12)
    assert restored["other"] == "kept"


def test_normalize_range_of_quantiles():
    data = {"x": np.array([-1.0, 1.0, 3.0])}
    result = transforms.Normalize({"x": stats(3)}, use_quantiles=True)(data)
    np.testing.assert_allclose(result["x"], [-1, 0, 1], atol=1e-6)


def test_normalize_without_statistics_does_nothing():
    data = {"state": np.ones(2)}
    assert transforms.Normalize(None)(data) is data
    assert transforms.Unnormalize(None)(data) is data


def test_normalize_errors():
    with pytest.raises(ValueError, match=r"6 values .* statistics of 5"):
        transforms.Normalize({"state": stats(5)})({"state": np.ones(6)})
    with pytest.raises(ValueError, match=r"q01 and q99 for 'actions'"):
        transforms.Normalize({"actions": stats(2, q01=None)}, use_quantiles=True)
    with pytest.raises(ValueError, match=r"Missing \['actions'\]; there are \['state'\]"):
        transforms.Normalize({"actions": stats(2)}, strict=True)({"state": np.ones(2)})
    with pytest.raises(ValueError, match=r"Missing \['state'\]"):
        transforms.Unnormalize({"state": stats(2)})({"actions": np.ones(2)})


def test_actions_shorter_than_their_statistics_are_unnormalized():
    for quantiles in (False, True):
        whole = transforms.Unnormalize({"actions": stats(5)}, quantiles)({"actions": np.ones((4, 5))})
        short = transforms.Unnormalize({"actions": stats(5)}, quantiles)({"actions": np.ones((4, 3))})
        np.testing.assert_array_equal(short["actions"], whole["actions"][:, :3])


def test_delta_actions():
    data = {"state": np.array([1.0, 2.0, 3.0]), "actions": np.array([[3.0, 4.0, 5.0], [5.0, 6.0, 7.0]])}
    mask = transforms.make_bool_mask(2, -1)
    delta = transforms.DeltaActions(mask)(data)
    np.testing.assert_array_equal(delta["actions"], [[2, 2, 5], [4, 4, 7]])
    np.testing.assert_array_equal(transforms.AbsoluteActions(mask)(delta)["actions"], data["actions"])
    np.testing.assert_array_equal(data["actions"][0], [3, 4, 5])
    assert transforms.DeltaActions(mask)({"state": 1}) == {"state": 1}


def test_delta_mask_may_not_be_longer_than_state_and_actions():
    with pytest.raises(ValueError, match="mask has 4 entries, the state 3 values and an action 5"):
        transforms.DeltaActions((True,) * 4)({"state": np.ones(3), "actions": np.ones((2, 5))})


def test_subsample_and_pad():
    data = {"state": np.ones(3), "actions": np.arange(20).reshape(10, 2)}
    assert transforms.SubsampleActions(3)(data)["actions"][:, 0].tolist() == [0, 6, 12, 18]
    padded = transforms.PadStatesAndActions(4)(data)
    assert padded["state"].tolist() == [1, 1, 1, 0]
    assert padded["actions"].shape == (10, 4)
    assert "actions" not in transforms.PadStatesAndActions(4)({"state": np.ones(3)})
    np.testing.assert_array_equal(transforms.pad_to_dim(np.ones((2, 2)), 3, axis=0, value=7)[2], [7, 7])


def test_resize_keeps_the_aspect_ratio_and_refuses_floats():
    image = np.full((10, 20, 3), 200, np.uint8)
    resized = transforms.ResizeImages(8, 8)({"image": {"base": image}})["image"]["base"]
    assert resized.shape == (8, 8, 3)
    assert (resized[:2] == 0).all()
    assert (resized[2:6] == 200).all()
    same = np.zeros((8, 8, 3), np.float32)
    assert transforms.ResizeImages(8, 8)({"image": {"base": same}})["image"]["base"] is same
    with pytest.raises(ValueError, match="'base' is float32"):
        transforms.ResizeImages(8, 8)({"image": {"base": image.astype(np.float32)}})


class EchoTokenizer:
    def tokenize(self, prompt, state, actions="no actions given"):
        result = (np.array([len(prompt)]), np.array([True]))
        return result if isinstance(actions, str) else (*result, state, actions)


def test_tokenize_prompt():
    tokenize = transforms.TokenizePrompt(EchoTokenizer())
    result = tokenize({"prompt": np.asarray("abc"), "state": np.ones(2)})
    assert result["tokenized_prompt"].tolist() == [3]
    assert "prompt" not in result
    with pytest.raises(ValueError, match=r"'prompt' is missing.*default prompt.*\['state'\]"):
        tokenize({"state": 1})
    with pytest.raises(ValueError, match="'state' is missing"):
        transforms.TokenizePrompt(EchoTokenizer(), discrete_state_input=True)({"prompt": "x"})


def test_tokenize_fast_inputs_with_and_without_actions():
    tokenize = transforms.TokenizeFASTInputs(EchoTokenizer())
    result = tokenize({"prompt": "abc", "state": 5, "actions": 6})
    assert (result["token_ar_mask"], result["token_loss_mask"]) == (5, 6)
    assert tokenize({"prompt": "abc", "state": 5})["token_loss_mask"] is None


def test_extract_fast_actions_casts_tokens():
    class Tokenizer:
        def extract_actions(self, tokens, horizon, dim):
            assert tokens.dtype == np.int32
            return np.zeros((horizon, dim))

    extract = transforms.ExtractFASTActions(Tokenizer(), 3, 2)
    assert extract({"actions": np.array([1.0, 2.0], np.float32)})["actions"].shape == (3, 2)
    assert extract({"state": 1}) == {"state": 1}


def test_prompt_from_task():
    from_task = transforms.PromptFromLeRobotTask({0: "one", 3: "three"})
    assert from_task({"task_index": np.array(3)})["prompt"] == "three"
    with pytest.raises(ValueError, match="no task 2; its tasks are"):
        from_task({"task_index": 2})
    with pytest.raises(ValueError, match="'task_index' is missing"):
        from_task({})


def test_every_transform_is_a_transform():
    assert isinstance(transforms.PadStatesAndActions(3), transforms.DataTransformFn)
    assert isinstance(transforms.compose([]), transforms.DataTransformFn)
    assert isinstance(lambda data: data, transforms.DataTransformFn)
