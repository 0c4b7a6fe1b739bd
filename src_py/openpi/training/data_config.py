"""What a config says about its data: the data set, where its statistics lie, and the transforms around the model.

A `DataConfigFactory` is what stands in a training config; `create(assets_dirs, model_config)` makes the `DataConfig`
that data loaders and policies read.
"""

import abc
import dataclasses
import enum
import importlib.resources
import logging
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import tyro

from openpi import transforms
from openpi.models import model as _model
from openpi.models import pi0_config, pi0_fast
from openpi.models import tokenizer as _tokenizer
from openpi.shared import download, normalize

logger = logging.getLogger(__name__)

# The SentencePiece model that ships with the package, for small models that know no PaliGemma tokens.
SMALL_TOKENIZER = str(importlib.resources.files("openpi") / "assets" / "small_tokenizer.model")


class DroidActionSpace(enum.Enum):
    """Which of the recorded actions of DROID a model learns."""

    JOINT_POSITION = "joint_position"
    JOINT_VELOCITY = "joint_velocity"


@dataclasses.dataclass(frozen=True)
class RLDSDataset:
    """One RLDS (TensorFlow Datasets) data set of a mixture.

    Attributes:
        weight: share of the samples drawn from it.
        filter_dict_path: JSON file or URL: episode -> ranges of steps to keep; None keeps every step.
    """

    name: str
    version: str
    weight: float
    filter_dict_path: str | None = None


@dataclasses.dataclass(frozen=True)
class AssetsConfig:
    """Where the normalisation statistics lie: `<assets_dir>/<asset_id>/norm_stats.json`.

    Attributes:
        assets_dir: folder or URL; None means the training config's own `assets_dirs`.
        asset_id: None means the data set's `repo_id`.
    """

    assets_dir: str | None = None
    asset_id: str | None = None


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What data loaders and policies need to know.

    Attributes:
        repo_id: LeRobot data set: a folder or a Hugging Face id; "fake" makes samples up; None for none.
        asset_id: folder of the statistics below an assets folder.
        norm_stats: statistics by key, None where there are none yet.
        repack_transforms: from the data set's keys to the robot transforms' keys; training only.
        data_transforms: robot inputs and outputs, delta actions.
        model_transforms: what the model needs: image size, tokens, padding.
        use_quantile_norm: normalise with q01 and q99, else with mean and standard deviation.
        action_sequence_keys: data set keys that are read as a chunk of the action horizon's length.
        prompt_from_task: take the prompt from the data set's task.
        rlds_data_dir: folder of the RLDS data sets; set, it replaces `repo_id`.
        action_space: which actions of DROID (RLDS).
        datasets: the mixture of RLDS data sets.
    """

    repo_id: str | None = None
    asset_id: str | None = None
    norm_stats: dict[str, normalize.NormStats] | None = None
    repack_transforms: transforms.Group = dataclasses.field(default_factory=transforms.Group)
    data_transforms: transforms.Group = dataclasses.field(default_factory=transforms.Group)
    model_transforms: transforms.Group = dataclasses.field(default_factory=transforms.Group)
    use_quantile_norm: bool = False
    action_sequence_keys: Sequence[str] = ("actions",)
    prompt_from_task: bool = False
    rlds_data_dir: str | None = None
    action_space: DroidActionSpace | None = None
    datasets: Sequence[RLDSDataset] = ()


@runtime_checkable
class GroupFactory(Protocol):
    """Makes the transforms that suit a model."""

    def __call__(self, model_config: _model.BaseModelConfig) -> transforms.Group: ...


@dataclasses.dataclass(frozen=True)
class ModelTransformFactory(GroupFactory):
    """The transforms nearest to the model: default prompt, image size, tokens, padding of state and actions.

    Attributes:
        default_prompt: for samples that carry none.
        tokenizer_path: SentencePiece model file; None for PaliGemma's.
    """

    default_prompt: str | None = None
    tokenizer_path: str | None = dataclasses.field(default=None, kw_only=True)

    def __call__(self, model_config: _model.BaseModelConfig) -> transforms.Group:
        prompt = transforms.InjectDefaultPrompt(self.default_prompt)
        resize = transforms.ResizeImages(*getattr(model_config, "image_resolution", _model.IMAGE_RESOLUTION))
        if isinstance(model_config, pi0_fast.Pi0FASTConfig):
            return self._fast(model_config, prompt, resize)
        if isinstance(model_config, pi0_config.Pi0Config):
            return self._flow(model_config, prompt, resize)
        raise ValueError(
            f"There are no default transforms for {type(model_config).__name__}; "
            "give the data config `model_transforms` of its own."
        )

    def _flow(self, config: pi0_config.Pi0Config, *first: transforms.DataTransformFn) -> transforms.Group:
        tokenizer = _tokenizer.PaligemmaTokenizer(config.max_token_len, **self._tokenizer_kwargs())
        return transforms.Group(
            inputs=[
                *first,
                transforms.TokenizePrompt(tokenizer, discrete_state_input=bool(config.discrete_state_input)),
                transforms.PadStatesAndActions(config.action_dim),
            ]
        )

    def _fast(self, config: pi0_fast.Pi0FASTConfig, *first: transforms.DataTransformFn) -> transforms.Group:
        make = config.fast_model_tokenizer or _tokenizer.FASTTokenizer
        kwargs = {**self._tokenizer_kwargs(), **(config.fast_model_tokenizer_kwargs or {})}
        tokenizer = make(config.max_token_len, **kwargs)
        return transforms.Group(
            inputs=[*first, transforms.TokenizeFASTInputs(tokenizer)],
            outputs=[transforms.ExtractFASTActions(tokenizer, config.action_horizon, config.action_dim)],
        )

    def _tokenizer_kwargs(self) -> dict[str, Any]:
        return {} if self.tokenizer_path is None else {"model_path": self.tokenizer_path}


@dataclasses.dataclass(frozen=True)
class DataConfigFactory(abc.ABC):
    """What a training config holds in its `data` field.

    Attributes:
        repo_id: the LeRobot data set; may stay unset for configs that only serve.
        assets: where the statistics lie.
        base_config: values for fields that the factory does not set itself.
        tokenizer_path: SentencePiece model file; None for PaliGemma's.
    """

    repo_id: str = tyro.MISSING
    assets: AssetsConfig = dataclasses.field(default_factory=AssetsConfig)
    base_config: tyro.conf.Suppress[DataConfig | None] = None
    tokenizer_path: str | None = dataclasses.field(default=None, kw_only=True)

    @abc.abstractmethod
    def create(self, assets_dirs: pathlib.Path, model_config: _model.BaseModelConfig) -> DataConfig:
        """The data config for this model; statistics are looked for below `assets_dirs`."""

    def create_base_config(self, assets_dirs: pathlib.Path, model_config: _model.BaseModelConfig) -> DataConfig:
        """`base_config` with repo_id, asset_id, statistics and the way to normalise filled in.

        Every model but pi0 was trained on quantiles.
        """
        repo_id = None if self.repo_id is tyro.MISSING else self.repo_id
        asset_id = self.assets.asset_id or repo_id
        return dataclasses.replace(
            self.base_config or DataConfig(),
            repo_id=repo_id,
            asset_id=asset_id,
            norm_stats=self._load_norm_stats(self.assets.assets_dir or assets_dirs, asset_id),
            use_quantile_norm=model_config.model_type is not _model.ModelType.PI0,
        )

    def around_model(self, model_config: _model.BaseModelConfig, default_prompt: str | None = None) -> transforms.Group:
        """The default transforms nearest to the model, with this factory's tokenizer."""
        return ModelTransformFactory(default_prompt, tokenizer_path=self.tokenizer_path)(model_config)

    def _load_norm_stats(
        self, assets_dir: pathlib.Path | str, asset_id: str | None
    ) -> dict[str, normalize.NormStats] | None:
        """The statistics, or None where there are none at hand: serving takes them from the checkpoint, and training
        says what to do."""
        if asset_id is None:
            return None
        folder = f"{str(assets_dir).rstrip('/')}/{asset_id}"
        try:
            return normalize.load(download.maybe_download(folder))
        except FileNotFoundError:
            logger.info("There are no normalisation statistics in %s.", folder)
        except ValueError:  # they are there and malformed
            raise
        except Exception as error:  # no network, no credentials, no package for this kind of URL
            logger.warning("The normalisation statistics in %s cannot be fetched: %s", folder, error)
        return None


@dataclasses.dataclass(frozen=True)
class FakeDataConfig(DataConfigFactory):
    """Made-up samples in the model's own format, for tests and timing."""

    repo_id: str = "fake"

    def create(self, assets_dirs: pathlib.Path, model_config: _model.BaseModelConfig) -> DataConfig:
        return DataConfig(repo_id=self.repo_id)


@dataclasses.dataclass(frozen=True)
class SimpleDataConfig(DataConfigFactory):
    """A data config from two functions of the model config, each giving a group of transforms.

    Attributes:
        data_transforms: the robot's.
        model_transforms: those nearest to the model.
    """

    data_transforms: tyro.conf.Suppress[Callable[[_model.BaseModelConfig], transforms.Group]] = dataclasses.field(
        default_factory=lambda: _no_transforms
    )
    model_transforms: tyro.conf.Suppress[Callable[[_model.BaseModelConfig], transforms.Group]] = dataclasses.field(
        default_factory=ModelTransformFactory
    )

    def create(self, assets_dirs: pathlib.Path, model_config: _model.BaseModelConfig) -> DataConfig:
        near_model = self.model_transforms
        if self.tokenizer_path is not None and isinstance(near_model, ModelTransformFactory):
            near_model = dataclasses.replace(near_model, tokenizer_path=self.tokenizer_path)
        return dataclasses.replace(
            self.create_base_config(assets_dirs, model_config),
            data_transforms=self.data_transforms(model_config),
            model_transforms=near_model(model_config),
        )


def _no_transforms(_: _model.BaseModelConfig) -> transforms.Group:
    return transforms.Group()


def with_delta_actions(group: transforms.Group, mask: Sequence[bool]) -> transforms.Group:
    """`group` with actions relative to the state where `mask` is True, absolute again on the way out."""
    return group.push(inputs=[transforms.DeltaActions(mask)], outputs=[transforms.AbsoluteActions(mask)])
