import fsspec
import pytest

from openpi.serving.checkpoint_store import CheckpointStore, UnknownCheckpointError


def make(root, *names, weights="params"):
    for name in names:
        (root / name / weights).mkdir(parents=True)


def test_lists_step_folders_with_weights_in_order(tmp_path):
    make(tmp_path, "1000", "200", "checkpoint-3000")
    make(tmp_path, "4000.orbax-checkpoint-tmp-1", "assets")
    (tmp_path / "5000").mkdir()  # nothing in it yet
    assert CheckpointStore(str(tmp_path)).ids() == ["checkpoint-200", "checkpoint-1000", "checkpoint-3000"]


def test_resolves_ids_bare_numbers_and_the_latest(tmp_path):
    make(tmp_path, "200", "checkpoint-300")
    store = CheckpointStore(f"{tmp_path}/")
    assert store.resolve("200") == store.resolve("checkpoint-200") == "checkpoint-200"
    assert store.resolve(None) == "checkpoint-300"
    assert store.address_of("checkpoint-200") == f"{tmp_path}/200"
    assert store.address_of("checkpoint-300") == f"{tmp_path}/checkpoint-300"


def test_a_new_checkpoint_appears(tmp_path):
    store = CheckpointStore(str(tmp_path))
    with pytest.raises(UnknownCheckpointError, match="none at all"):
        store.resolve(None)
    make(tmp_path, "7", weights="model.safetensors")
    assert store.ids() == ["checkpoint-7"]


def test_an_unknown_one_lists_those_there_are(tmp_path):
    make(tmp_path, "1", "2")
    with pytest.raises(UnknownCheckpointError, match=r"'9' in .* Available: checkpoint-1, checkpoint-2"):
        CheckpointStore(str(tmp_path)).resolve("9")


def test_one_that_was_deleted_is_unknown_too(tmp_path):
    make(tmp_path, "1", "2")
    store = CheckpointStore(str(tmp_path))
    (tmp_path / "1" / "params").rmdir()
    with pytest.raises(UnknownCheckpointError, match=r"'checkpoint-1' in .* Available: checkpoint-2"):
        store.address_of("checkpoint-1")


def test_a_checkpoint_itself(tmp_path):
    make(tmp_path, "pi05_droid")
    store = CheckpointStore(str(tmp_path / "pi05_droid"))
    assert store.resolve(None) == "pi05_droid"
    assert store.address_of("pi05_droid") == str(tmp_path / "pi05_droid")


def test_no_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        CheckpointStore(str(tmp_path / "nowhere")).ids()


def test_remote_folders():
    files = fsspec.filesystem("memory")
    files.pipe("/bucket/run/10/params/x", b"1")
    files.pipe("/bucket/run/20/model.safetensors", b"1")
    store = CheckpointStore("memory://bucket/run")
    assert store.ids() == ["checkpoint-10", "checkpoint-20"]
    assert store.address_of("checkpoint-10") == "memory://bucket/run/10"


@pytest.mark.parametrize(("address", "extra"), [("s3://bucket/run", "s3"), ("gs://bucket/run", "gcs")])
def test_a_missing_package_says_what_to_install(address, extra, monkeypatch):
    def no_package(*_, **__):
        raise ImportError("no such package")

    monkeypatch.setattr(fsspec.core, "url_to_fs", no_package)
    with pytest.raises(ImportError, match=rf"openpi\[{extra}\]"):
        CheckpointStore(address)
