"""The small tokenizers that the vectors were made with; lets tests import what lies beside them."""

import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.append(str(HERE))


@pytest.fixture(scope="session")
def sentencepiece_model() -> pathlib.Path:
    """The small SentencePiece model that the vectors were made with."""
    return HERE.parent / "assets" / "tiny_sp.model"


@pytest.fixture(scope="session")
def fast_folder(golden: Callable[[str], pathlib.Path], tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The small FAST tokenizer of the vectors, laid out as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("fast")
    (folder / "tokenizer.json").write_bytes(golden("tokenizer/tiny_fast_tokenizer.json").read_bytes())
    (folder / "processor_config.json").write_bytes(golden("tokenizer/tiny_fast_config.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def tokenizer_in_data_home(
    tmp_path_factory: pytest.TempPathFactory, sentencepiece_model: pathlib.Path
) -> Iterator[None]:
    """Policies find that tokenizer where PaliGemma's would be."""
    home = tmp_path_factory.mktemp("home")
    target = home / "big_vision" / "paligemma_tokenizer.model"
    target.parent.mkdir()
    shutil.copyfile(sentencepiece_model, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENPI_DATA_HOME", str(home))
        yield
