"""Checkpoints of a training run, in the published layout.

    <run>/<step>/params/                        the weights to deploy: the moving average where there is one
    <run>/<step>/train_state/                   all the rest that training needs to go on
    <run>/<step>/assets/<asset_id>/norm_stats.json

Orbax writes a step into a temporary folder and renames it when it is whole, so a kill or a full disk during a save
leaves the earlier steps as they were.
"""

import logging
import pathlib
import shutil
from typing import Any, Protocol

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils
from orbax.checkpoint import future as ocp_future

from openpi.shared import normalize
from openpi.training import data_loader as _data_loader
from openpi.training import utils

logger = logging.getLogger(__name__)

# Writing a big model to slow storage takes long; waiting for ever would hide that it hangs.
SAVE_TIMEOUT_SECS = 7200
_SKIPPED = "skipped_samples"


def initialize_checkpoint_dir(
    checkpoint_dir: pathlib.Path | str,
    *,
    keep_period: int | None,
    overwrite: bool,
    resume: bool,
    keep_last: int = 1,
) -> tuple[ocp.CheckpointManager, bool]:
    """A manager for the run's folder, and whether there is a checkpoint to resume from.

    Args:
        keep_period: steps that are multiples of it stay for ever; None for none.
        overwrite: delete what the folder holds.
        resume: go on with what the folder holds.
        keep_last: how many of the newest steps stay.

    Raises:
        FileExistsError: the folder exists, and neither overwrite nor resume is set.
    """
    folder = pathlib.Path(checkpoint_dir).resolve()
    _prepare(folder, overwrite=overwrite, resume=resume)
    manager = ocp.CheckpointManager(
        folder,
        item_handlers={
            "assets": CallbackHandler(),
            "train_state": ocp.PyTreeCheckpointHandler(),
            "params": ocp.PyTreeCheckpointHandler(),
        },
        options=ocp.CheckpointManagerOptions(
            max_to_keep=keep_last,
            keep_period=keep_period,
            create=False,
            async_options=ocp.AsyncOptions(timeout_secs=SAVE_TIMEOUT_SECS),
        ),
    )
    found = bool(manager.all_steps())
    if resume and not found:
        logger.info("There is no checkpoint in %s to resume from; training starts at step 0.", folder)
    return manager, resume and found


def require_free(folder: pathlib.Path, *, overwrite: bool, resume: bool) -> None:
    """Raises FileExistsError if the run's folder exists, and neither overwrite nor resume is set."""
    existed = folder.exists()
    if jax.process_count() > 1:  # all look before the first one makes it
        multihost_utils.sync_global_devices("checkpoint folder seen")
    if existed and not (overwrite or resume):
        raise FileExistsError(
            f"There is a run in {folder} already. Resume it (--resume), delete it (--overwrite), or choose another "
            "--exp-name."
        )


def _prepare(folder: pathlib.Path, *, overwrite: bool, resume: bool) -> None:
    require_free(folder, overwrite=overwrite, resume=resume)
    if jax.process_index() == 0:
        if overwrite and folder.exists():
            shutil.rmtree(folder)
            logger.info("Deleted the earlier run in %s.", folder)
        folder.mkdir(parents=True, exist_ok=True)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("checkpoint folder ready")


def save_state(
    checkpoint_manager: ocp.CheckpointManager,
    state: utils.TrainState,
    data_loader: _data_loader.DataLoader,
    step: int,
) -> None:
    """Start saving a step: weights, training state, and the data's statistics. Returns before it is on disk.

    How many bad samples the loader skipped up to here stands in the step's metadata (see `skipped_samples`).
    """
    train_state, params = _split_params(state)
    items = {
        "assets": CallbackSave(_AssetsWriter(data_loader)),
        "train_state": ocp.args.PyTreeSave(train_state),
        "params": ocp.args.PyTreeSave({"params": params}),
    }
    skipped = data_loader.skipped_before(step + 1) if hasattr(data_loader, "skipped_before") else 0
    checkpoint_manager.save(step, args=ocp.args.Composite(**items), custom_metadata={_SKIPPED: skipped})


def skipped_samples(checkpoint_manager: ocp.CheckpointManager) -> int:
    """How many bad samples were skipped up to the newest step; 0 where another trainer saved it."""
    metadata = checkpoint_manager.metadata(checkpoint_manager.latest_step())
    return int((metadata.custom_metadata or {}).get(_SKIPPED, 0))


def restore_state(
    checkpoint_manager: ocp.CheckpointManager,
    state: utils.TrainState,
    data_loader: _data_loader.DataLoader,
    step: int | None = None,
) -> utils.TrainState:
    """The state that was saved at `step`, default the newest.

    Args:
        state: a state of the same structure, arrays or `jax.ShapeDtypeStruct`s with shardings.

    Raises:
        FileNotFoundError: there is no such step.
        ValueError: the step cannot be read, or was saved with another model or optimizer.
    """
    del data_loader  # part of the published signature; the loader's position follows from the step
    wanted = checkpoint_manager.latest_step() if step is None else step
    if wanted not in checkpoint_manager.all_steps():
        raise FileNotFoundError(
            f"There is no step {wanted} in {checkpoint_manager.directory}; "
            f"there are {sorted(checkpoint_manager.all_steps())}."
        )
    train_state, params = _split_params(state)
    targets = {"train_state": train_state, "params": {"params": params}}
    args = {
        name: ocp.args.PyTreeRestore(item=tree, restore_args=ocp.checkpoint_utils.construct_restore_args(tree))
        for name, tree in targets.items()
    }
    try:
        restored = checkpoint_manager.restore(wanted, args=ocp.args.Composite(**args))
    except Exception as error:  # Orbax raises bare Exceptions for data that is cut off or not there
        raise ValueError(
            f"Step {wanted} in {checkpoint_manager.directory} cannot be restored: it is damaged, or another model, "
            f"optimizer or ema_decay wrote it than the config's. ({error})"
        ) from error
    return _merge_params(state, restored["train_state"], restored["params"]["params"])


def stats_names(assets_dir: epath.Path | pathlib.Path | str) -> list[str]:
    """The asset ids for which a checkpoint's `assets` folder has statistics."""
    folder = pathlib.Path(assets_dir)
    return sorted(str(file.parent.relative_to(folder)) for file in folder.rglob(normalize.FILE_NAME))


def load_norm_stats(assets_dir: epath.Path | pathlib.Path | str, asset_id: str) -> dict[str, normalize.NormStats]:
    """The statistics a checkpoint's `assets` folder has for `asset_id`.

    Raises:
        FileNotFoundError: it has none; the message lists those there are.
        ValueError: they are malformed.
    """
    folder = pathlib.Path(assets_dir)
    try:
        return normalize.load(folder / asset_id)
    except FileNotFoundError as error:
        there = stats_names(folder)
        hint = f"it has statistics for {', '.join(there)}" if there else "it has no statistics at all"
        raise FileNotFoundError(
            f"There are no normalisation statistics for asset_id '{asset_id}' in {folder}; {hint}."
        ) from error


def _split_params(state: utils.TrainState) -> tuple[dict[str, Any], Any]:
    """What goes into `train_state`, and the weights to deploy, which are stored only once."""
    deployed = state.params if state.ema_params is None else state.ema_params
    rest = {
        "step": state.step,
        "params": {} if state.ema_params is None else state.params,
        "model_def": None,  # the published layout has this entry
        "opt_state": state.opt_state,
        "ema_params": None,
    }
    return rest, deployed


def _merge_params(state: utils.TrainState, rest: dict[str, Any], deployed: Any) -> utils.TrainState:
    common = {"step": rest["step"], "opt_state": rest["opt_state"]}
    if state.ema_params is None:
        return state.replace(params=deployed, **common)
    return state.replace(params=rest["params"], ema_params=deployed, **common)


class _AssetsWriter:
    """Writes the statistics that the data loader normalises with."""

    def __init__(self, data_loader: _data_loader.DataLoader) -> None:
        self._data_config = data_loader.data_config()

    def __call__(self, directory: epath.Path) -> None:
        stats, asset_id = self._data_config.norm_stats, self._data_config.asset_id
        if stats is not None and asset_id is not None:
            normalize.save(pathlib.Path(directory) / asset_id, stats)


class Callback(Protocol):
    """Writes files of its own into a checkpoint."""

    def __call__(self, directory: epath.Path) -> None: ...


class CallbackHandler(ocp.AsyncCheckpointHandler):
    """Lets a function write an item of a checkpoint. Nothing is read back through Orbax."""

    def save(self, directory: epath.Path, args: "CallbackSave") -> None:
        if jax.process_index() == 0:
            args.callback(directory)

    async def async_save(self, directory: epath.Path, args: "CallbackSave") -> list[ocp_future.Future]:
        async def write() -> None:  # runs in a thread of its own
            self.save(directory, args)

        return [ocp_future.CommitFutureAwaitingContractedSignals(write())]

    def restore(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError("A callback's files are read where they are needed (see load_norm_stats), not through Orbax.")


@ocp.args.register_with_handler(CallbackHandler, for_save=True)
class CallbackSave(ocp.args.CheckpointArgs):
    """The function that writes the item."""

    def __init__(self, callback: Callback) -> None:
        self.callback = callback


@ocp.args.register_with_handler(CallbackHandler, for_restore=True)
class CallbackRestore(ocp.args.CheckpointArgs):
    """Nothing to say when restoring."""
