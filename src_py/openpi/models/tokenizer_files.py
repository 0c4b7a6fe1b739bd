"""Finds the tokenizers' files, and says how to get one that is not there."""

from __future__ import annotations

import os
import pathlib

DATA_HOME_VARIABLE = "OPENPI_DATA_HOME"
PALIGEMMA_FILE = pathlib.Path("big_vision") / "paligemma_tokenizer.model"


def data_home() -> pathlib.Path:
    """Where downloads are kept: $OPENPI_DATA_HOME, else ~/.cache/openpi."""
    return pathlib.Path(os.environ.get(DATA_HOME_VARIABLE) or "~/.cache/openpi").expanduser()


def paligemma_model(model_path: str | os.PathLike[str] | None) -> pathlib.Path:
    """The SentencePiece file: `model_path`, else the one in the download cache.

    Raises:
        FileNotFoundError: it is not there.
    """
    path = pathlib.Path(model_path).expanduser() if model_path is not None else data_home() / PALIGEMMA_FILE
    if path.is_file():
        return path
    raise FileNotFoundError(
        f"The PaliGemma tokenizer (a SentencePiece model) is not at {path}. Get it with `openpi fetch-tokenizer`, copy "
        f"your own paligemma_tokenizer.model to {data_home() / PALIGEMMA_FILE} ({DATA_HOME_VARIABLE} moves that "
        "folder), or give its path as model_path in the config."
    )


def fast_folder(name: str | os.PathLike[str]) -> pathlib.Path:
    """The FAST tokenizer's folder: a path, or a Hugging Face name found in the data home or in that hub's cache.

    Raises:
        FileNotFoundError: it is in none of these places.
    """
    places = [pathlib.Path(name).expanduser(), data_home() / name, *_hub_snapshots(str(name))]
    for place in places:
        if (place / "tokenizer.json").is_file():
            return place
    looked = ", ".join(str(place) for place in places)
    raise FileNotFoundError(
        f"The FAST action tokenizer '{name}' is not here; looked for tokenizer.json in {looked}. Download that "
        f"repository from the Hugging Face hub into {data_home() / name} ({DATA_HOME_VARIABLE} moves that folder), or "
        "fit one on your own actions (openpi.models.fast_processor.FastActionProcessor.fit(...).save(folder)) and "
        "give the folder as fast_tokenizer_path in the config."
    )


def _hub_snapshots(name: str) -> list[pathlib.Path]:
    home = pathlib.Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    return sorted((home / "hub" / f"models--{name.replace('/', '--')}" / "snapshots").glob("*"))
