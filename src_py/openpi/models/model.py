"""What all models have in common: their inputs, their configuration, and how parameters are read from disk."""

import abc
import dataclasses
import enum
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import augmax
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct, traverse_util

from openpi.shared import array_typing as at
from openpi.shared import image_tools

if TYPE_CHECKING:
    from openpi.models_pytorch.pi0_pytorch import PI0Pytorch

logger = logging.getLogger("openpi")

ArrayT = TypeVar("ArrayT", bound=at.Array | jax.ShapeDtypeStruct)

# The cameras that pi0 and pi0.5 were trained with. A robot that lacks one sends a black image and a False mask.
IMAGE_KEYS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
IMAGE_RESOLUTION = (224, 224)

Actions: TypeAlias = at.Float[ArrayT, "*b ah ad"]


class ModelType(enum.Enum):
    """The families of models."""

    PI0 = "pi0"
    PI0_FAST = "pi0_fast"
    PI05 = "pi05"


@at.typecheck
@struct.dataclass
class Observation(Generic[ArrayT]):
    """A model's input; *b are batch dimensions.

    Attributes:
        images: per camera, [*b, h, w, 3] float32 in [-1, 1].
        image_masks: per camera, [*b] bool, False where there is no image.
        state: [*b, s], normalised and padded as the model wants it.
        tokenized_prompt, tokenized_prompt_mask: token ids and which of them are no padding, [*b, l].
        token_ar_mask: pi0-FAST: 1 where a token is generated (sees only earlier ones), 0 in the prefix.
        token_loss_mask: pi0-FAST: True where a token counts in the training loss.
    """

    images: dict[str, at.Float[ArrayT, "*b h w c"]]
    image_masks: dict[str, at.Bool[ArrayT, "*b"]]
    state: at.Float[ArrayT, "*b s"]
    tokenized_prompt: at.Int[ArrayT, "*b l"] | None = None
    tokenized_prompt_mask: at.Bool[ArrayT, "*b l"] | None = None
    token_ar_mask: at.Int[ArrayT, "*b l"] | None = None
    token_loss_mask: at.Bool[ArrayT, "*b l"] | None = None

    @classmethod
    def from_dict(cls, data: at.PyTree[ArrayT]) -> "Observation[ArrayT]":
        """Make an observation from the dict that the transforms produce.

        Images are uint8 (turned into [-1, 1]) or already float, under "image" and "image_mask" or "images" and
        "image_masks". `data` is left as it is.

        Raises:
            ValueError: something is missing, of a wrong dtype or rank, or not finite.
        """
        if ("tokenized_prompt" in data) != ("tokenized_prompt_mask" in data):
            raise ValueError("tokenized_prompt and tokenized_prompt_mask must be given together; only one of them is.")
        images, masks = _either(data, "image", "images"), _either(data, "image_mask", "image_masks")
        optional = ("tokenized_prompt", "tokenized_prompt_mask", "token_ar_mask", "token_loss_mask")
        return cls(
            images={name: _to_float_image(name, image) for name, image in images.items()},
            image_masks=masks,
            state=_checked_state(_either(data, "state")),
            **{name: data.get(name) for name in optional},
        )

    def to_dict(self) -> at.PyTree[ArrayT]:
        """The nested dict that `from_dict` reads."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {"image": fields.pop("images"), "image_mask": fields.pop("image_masks"), **fields}


def _either(data: dict[str, Any], *names: str) -> Any:
    for name in names:
        if name in data:
            return data[name]
    raise ValueError(f"The observation has no {' or '.join(map(repr, names))}; it has {', '.join(sorted(data))}.")


def _to_float_image(name: str, image: Any) -> Any:
    if getattr(image, "ndim", 0) < 3:
        raise ValueError(f"Image {name!r} must be [..., height, width, 3], but has shape {np.shape(image)}.")
    dtype = str(image.dtype).removeprefix("torch.")
    if dtype == "uint8":
        as_float = image.float() if hasattr(image, "float") else image.astype(np.float32)
        return as_float / 255.0 * 2.0 - 1.0
    if "float" not in dtype:
        raise ValueError(f"Image {name!r} must be uint8 in [0, 255] or float in [-1, 1], but its dtype is {dtype}.")
    return image


def _checked_state(state: Any) -> Any:
    """Arrays of other kinds may be on a device or being traced: looking at their values there would stall or fail."""
    if isinstance(state, np.ndarray) and not np.isfinite(state).all():
        raise ValueError(f"The state has values that are not finite at {np.argwhere(~np.isfinite(state)).tolist()}.")
    return state


def preprocess_observation(
    rng: at.KeyArrayLike | None,
    observation: Observation,
    *,
    train: bool = False,
    image_keys: Sequence[str] = IMAGE_KEYS,
    image_resolution: tuple[int, int] = IMAGE_RESOLUTION,
) -> Observation:
    """Bring images to the model's cameras and resolution; missing masks become all True.

    Args:
        rng: key of the augmentation; not used unless `train`.
        observation: with images of any resolution.
        train: augment the images: colours of all, crop and rotation of those from cameras that are not on a wrist.
        image_keys: the cameras, in the order in which the model wants them.
        image_resolution: (height, width).

    Raises:
        ValueError: a camera is missing; the message names it.
    """
    if missing := [key for key in image_keys if key not in observation.images]:
        raise ValueError(f"The images of {missing} are missing; the observation has {list(observation.images)}.")
    if train and rng is None:
        raise ValueError("preprocess_observation augments with train=True, which needs a random key; rng is None.")
    batch_shape = observation.state.shape[:-1]
    keys = None if rng is None or not train else jax.random.split(rng, batch_shape[0])
    images = {}
    for key in image_keys:
        image = observation.images[key]
        if image.shape[-3:-1] != tuple(image_resolution):
            image = image_tools.resize_with_pad(image, *image_resolution)
        if keys is not None:  # one key per sample, the same for every camera
            image = _augment(keys, image, spatial="wrist" not in key)
        images[key] = image
    masks = {key: jnp.asarray(observation.image_masks.get(key, jnp.ones(batch_shape, bool))) for key in image_keys}
    return dataclasses.replace(observation, images=images, image_masks=masks)


def _augment(
    keys: at.Key[at.Array, "b"], images: at.Float[at.Array, "b h w c"], *, spatial: bool
) -> at.Float[at.Array, "b h w c"]:
    height, width = images.shape[1:3]
    transforms: list[augmax.Transformation] = []
    if spatial:
        crop = augmax.RandomCrop(int(width * 0.95), int(height * 0.95))
        transforms = [crop, augmax.Resize(width, height), augmax.Rotate((-5, 5))]
    transforms.append(augmax.ColorJitter(brightness=0.3, contrast=0.4, saturation=0.5))
    return jax.vmap(augmax.Chain(*transforms))(keys, images / 2.0 + 0.5) * 2.0 - 1.0


@dataclass(frozen=True)
class BaseModelConfig(abc.ABC):
    """What is common to the configurations of all models.

    Attributes:
        action_dim: size of the (padded) action space.
        action_horizon: actions in a chunk.
        max_token_len: length to which prompts are padded and cut.
    """

    action_dim: int
    action_horizon: int
    max_token_len: int

    @property
    @abc.abstractmethod
    def model_type(self) -> ModelType:
        """The family."""

    @abc.abstractmethod
    def create(self, rng: at.KeyArrayLike) -> "BaseModel":
        """A model with random parameters."""

    def load(self, params: at.Params, *, remove_extra_params: bool = True) -> "BaseModel":
        """A model with the given parameters: nested dicts as in a checkpoint.

        Args:
            params: their dtypes are kept, so that bfloat16 parameters stay bfloat16.
            remove_extra_params: leave out parameters that this model does not have, instead of raising.

        Raises:
            ValueError: parameters are missing, not expected or of other shapes; the message lists the paths.
        """
        graphdef, state = nnx.split(nnx.eval_shape(self.create, jax.random.key(0)))
        expected = nnx.to_pure_dict(state)
        if remove_extra_params:
            params = _intersect(params, expected)
        at.check_pytree_equality(expected=expected, got=params, check_shapes=True)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graphdef, state)

    def load_pytorch(self, train_config: Any, weight_path: str | Path) -> "PI0Pytorch":
        """The PyTorch model of `train_config.model` with the weights of a `model.safetensors` file."""
        from openpi.models_pytorch import pi0_pytorch, weights

        model = pi0_pytorch.PI0Pytorch(train_config.model)
        weights.load_safetensors(model, weight_path)
        return model

    @abc.abstractmethod
    def inputs_spec(self, *, batch_size: int = 1) -> tuple[Observation, Actions]:
        """Shapes and dtypes of a batch, as `jax.ShapeDtypeStruct`s."""

    def fake_obs(self, batch_size: int = 1) -> Observation:
        """An observation of ones."""
        observation_spec, _ = self.inputs_spec(batch_size=batch_size)
        return jax.tree.map(_ones, observation_spec)

    def fake_act(self, batch_size: int = 1) -> Actions:
        """Actions of ones."""
        _, action_spec = self.inputs_spec(batch_size=batch_size)
        return _ones(action_spec)


def _ones(spec: jax.ShapeDtypeStruct) -> jax.Array:
    return jnp.ones(spec.shape, spec.dtype)


def _intersect(params: at.Params, expected: at.Params) -> at.Params:
    flat, wanted = traverse_util.flatten_dict(params), traverse_util.flatten_dict(expected)
    return traverse_util.unflatten_dict({path: leaf for path, leaf in flat.items() if path in wanted})


class BaseModel(nnx.Module, abc.ABC):
    """A model: a loss to train it and a way to sample action chunks.

    Args:
        action_dim, action_horizon, max_token_len: as in `BaseModelConfig`.
    """

    def __init__(self, action_dim: int, action_horizon: int, max_token_len: int) -> None:
        self.action_dim = action_dim
        self.action_horizon = action_horizon
        self.max_token_len = max_token_len

    @abc.abstractmethod
    def compute_loss(
        self, rng: at.KeyArrayLike, observation: Observation, actions: Actions, *, train: bool = False
    ) -> at.Float[at.Array, "*b ah"]:
        """The training loss of each sample, not yet averaged; `train` switches the augmentation on."""

    @abc.abstractmethod
    def sample_actions(self, rng: at.KeyArrayLike, observation: Observation, **kwargs: Any) -> Actions:
        """Sample one action chunk (or its tokens) per observation."""


def restore_params(
    params_path: Path | str,
    *,
    restore_type: type[np.ndarray] | type[jax.Array] = jax.Array,
    dtype: jnp.dtype | None = None,
    sharding: jax.sharding.Sharding | None = None,
) -> at.Params:
    """Read the parameters of a checkpoint, a released one or one that training wrote.

    Args:
        params_path: the checkpoint's `params` folder, on disk or at a remote store that Orbax reads.
        restore_type: `np.ndarray` keeps the parameters in host memory; `jax.Array` puts them on the devices.
        dtype: turn all parameters into it; by default each keeps its own.
        sharding: where the parameters go; by default a copy on every device. Only with `jax.Array`.

    Returns:
        Nested dicts, without the "value" level that training adds below every parameter.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder holds no parameters that Orbax can read.
    """
    import orbax.checkpoint as ocp

    path = params_path if "://" in str(params_path) else Path(params_path).expanduser().resolve()
    if isinstance(path, Path) and not path.is_dir():
        raise FileNotFoundError(f"There is no folder {path}; give a checkpoint's `params` folder.")
    if restore_type is jax.Array and sharding is None:
        mesh = jax.sharding.Mesh(jax.devices(), ("x",))
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    with ocp.PyTreeCheckpointer() as checkpointer:
        item = {"params": _stored_params(path)}
        argument = ocp.ArrayRestoreArgs(sharding=sharding, restore_type=restore_type, dtype=dtype)
        arguments = ocp.args.PyTreeRestore(item=item, restore_args=jax.tree.map(lambda _: argument, item))
        try:
            params = checkpointer.restore(path, arguments)["params"]
        except Exception as error:  # Orbax raises bare Exceptions for data that is cut off or not there
            cause = str(error).partition("\n")[0]
            raise ValueError(
                f"The parameters in {path} are damaged or incomplete; copy them again. ({cause})"
            ) from error
    return _without_value_level(params)


def params_metadata(params_path: Path | str) -> dict[str, Any]:
    """The tree that `restore_params` gives, with metadata (`shape`, `dtype`) as leaves; reads no parameter.

    Raises:
        ValueError: the folder holds no parameters that Orbax can read.
    """
    return _without_value_level(_stored_params(Path(params_path).expanduser().resolve()))


def _stored_params(path: Path | str) -> dict[str, Any]:
    """The tree of what is stored, with arrays' metadata as leaves."""
    import orbax.checkpoint as ocp

    try:
        with ocp.PyTreeCheckpointer() as checkpointer:
            metadata = checkpointer.metadata(path)
        return getattr(metadata, "item_metadata", metadata)["params"]
    except (KeyError, TypeError, FileNotFoundError) as error:
        raise ValueError(
            f"{path} holds no parameters that Orbax can read ({error}); it should be the `params` folder of a "
            "checkpoint, completely copied."
        ) from error


def _without_value_level(params: at.Params) -> at.Params:
    flat = traverse_util.flatten_dict(params)
    if flat and all(path[-1] == "value" for path in flat):
        flat = {path[:-1]: leaf for path, leaf in flat.items()}
    return traverse_util.unflatten_dict(flat)
