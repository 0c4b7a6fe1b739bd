"""Remote files and folders, kept in a local cache.

`maybe_download("gs://bucket/checkpoints/x")` gives `<cache>/bucket/checkpoints/x`. Files are first written below
`<cache>/.downloads/<same path>/`, where an interrupted download goes on the next time, and are moved into place when
all of them have their full size. A manifest written last says which files a complete download has.
"""

import concurrent.futures
import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import shutil
import sys
import threading
import urllib.parse
import zlib
from collections.abc import Iterator
from typing import Any

import filelock
import fsspec
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

logger = logging.getLogger(__name__)

_OPENPI_DATA_HOME = "OPENPI_DATA_HOME"
DEFAULT_CACHE_DIR = "~/.cache/openpi"

# Bookkeeping of downloads, beside the cached files so that a rename never crosses file systems.
RECORDS_DIR = ".downloads"
CHUNK_BYTES = 8 * 2**20
PARALLEL_FILES = 8
EXTRAS = {"gs": "gcs", "gcs": "gcs", "s3": "s3"}


@dataclasses.dataclass(frozen=True)
class _RemoteFile:
    """A file of a download: `name` relative to what was asked for ("" for a single file), size None if not told."""

    path: str
    name: str
    size: int | None
    version: str


@dataclasses.dataclass(frozen=True)
class _Entry:
    """Where one URL lies in the cache, and where its bookkeeping does."""

    target: pathlib.Path
    records: pathlib.Path

    @property
    def manifest(self) -> pathlib.Path:
        return self.records / ".manifest.json"

    @property
    def staging(self) -> pathlib.Path:
        return self.records / ".partial"

    @property
    def lock(self) -> pathlib.Path:
        return self.records / ".lock"

    def staged(self, name: str) -> pathlib.Path:
        """Where a file is collected; "" for a download that is a single file."""
        return self.staging / "files" / name if name else self.staging / "file"

    def is_complete(self) -> bool:
        """All files of the manifest are there in full size.

        Without a manifest: files that somebody else put into the cache count as complete, unless they are only
        part of an unfinished download, or only came with downloads of folders further down.
        """
        if self.manifest.exists():
            sizes = json.loads(self.manifest.read_text())["files"]
            return all(_has_size(self.target / name if name else self.target, size) for name, size in sizes.items())
        return self.target.exists() and not self.staging.exists() and not any(self.records.rglob(".manifest.json"))


def get_cache_dir() -> pathlib.Path:
    """The cache folder: $OPENPI_DATA_HOME, else ~/.cache/openpi. It is made where it does not exist.

    Raises:
        OSError: it cannot be made.
    """
    cache = pathlib.Path(os.environ.get(_OPENPI_DATA_HOME) or DEFAULT_CACHE_DIR).expanduser().resolve()
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"The cache folder {cache} cannot be made ({error}). Set {_OPENPI_DATA_HOME} to a folder you may write to."
        ) from error
    return cache


def maybe_download(url: str | os.PathLike[str], *, force_download: bool = False, **kwargs: Any) -> pathlib.Path:
    """The local path of a file or folder, which is downloaded unless it is in the cache.

    Args:
        url: a local path, or a URL of any kind that fsspec knows (gs://, s3://, https://, ...).
        force_download: download again what is in the cache.
        kwargs: options for fsspec, such as `gs={"token": "anon"}`.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ImportError: the package for this kind of URL is not installed.
        OSError: the download failed or came short; the next call goes on where it stopped.
    """
    parsed = urllib.parse.urlparse(str(url))
    if _is_local(parsed):
        return _local(parsed.path if parsed.scheme == "file" else str(url))
    entry = _entry(parsed)
    if not force_download and entry.is_complete():
        return entry.target
    entry.records.mkdir(parents=True, exist_ok=True)
    with _locked(entry):
        # Another process may have finished it while this one waited.
        if force_download or not entry.is_complete():
            _download(str(url), entry, kwargs)
    return entry.target


def up_to_date(url: str | os.PathLike[str], **kwargs: Any) -> pathlib.Path:
    """As `maybe_download`, but what has other files or sizes there now than in the cache is downloaded again.

    That is so with a folder that was still being uploaded. Where the address cannot be reached, the cache counts.
    """
    parsed = urllib.parse.urlparse(str(url))
    changed = not _is_local(parsed) and _has_changed(str(url), _entry(parsed), kwargs)
    return maybe_download(url, force_download=changed, **kwargs)


def _has_changed(url: str, entry: _Entry, options: dict[str, Any]) -> bool:
    if not entry.manifest.exists():
        return False
    sizes = json.loads(entry.manifest.read_text())["files"]
    try:
        files = _list_remote(url, options)[1]
    except OSError as error:
        logger.warning("Using the copy of %s in the cache: %s", url, error)
        return False
    return any(file.size is not None and sizes.get(file.name) != file.size for file in files)


def _is_local(url: urllib.parse.ParseResult) -> bool:
    return len(url.scheme) < 2 or url.scheme == "file"  # one letter is a Windows drive


def _local(path: str) -> pathlib.Path:
    local = pathlib.Path(path).expanduser()
    if not local.exists():
        raise FileNotFoundError(f"There is no file or folder {local} (in full: {local.absolute()}).")
    return local.resolve()


def _entry(url: urllib.parse.ParseResult) -> _Entry:
    parts = [part for part in (url.netloc, *url.path.split("/")) if part and part != "."]
    if ".." in parts:
        raise ValueError(f"The URL {url.geturl()} contains '..'; give it without.")
    if url.query:
        parts[-1] += f"-{zlib.crc32(url.query.encode()):08x}"
    cache = get_cache_dir()
    return _Entry(cache.joinpath(*parts), cache.joinpath(RECORDS_DIR, *parts))


@contextlib.contextmanager
def _locked(entry: _Entry) -> Iterator[None]:
    lock = filelock.FileLock(entry.lock)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        logger.info("Another process is downloading %s; waiting for it.", entry.target)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _download(url: str, entry: _Entry, options: dict[str, Any]) -> None:
    fs, files = _list_remote(url, options)
    entry.staging.mkdir(parents=True, exist_ok=True)
    with _progress() as progress:
        total = None if any(file.size is None for file in files) else sum(file.size or 0 for file in files)
        transfer = _Transfer(fs, entry, progress, progress.add_task(url, total=total))
        with concurrent.futures.ThreadPoolExecutor(PARALLEL_FILES) as pool:
            jobs = [pool.submit(transfer.fetch, file) for file in files]
            try:
                for job in concurrent.futures.as_completed(jobs):
                    job.result()
            except BaseException:
                transfer.stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    _publish(files, entry)
    logger.info("Downloaded %s to %s.", url, entry.target)


def file_system(url: str, **options: Any) -> tuple[Any, str]:
    """The fsspec file system of a path or URL, and the path in it.

    Raises:
        ImportError: such URLs need a package that is not installed; the message says how to install it.
    """
    try:
        return fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        scheme = urllib.parse.urlparse(url).scheme
        extra = EXTRAS.get(scheme)
        hint = f"install it with `pip install 'openpi[{extra}]'`" if extra else "install it"
        raise ImportError(f"{scheme}:// needs a package that is not here: {hint} ({error}).") from error


def _list_remote(url: str, options: dict[str, Any]) -> tuple[Any, list[_RemoteFile]]:
    """The file system and every file below `url`, or the file itself."""
    fs, root = file_system(url, **options)
    fs.invalidate_cache()  # what was listed before may have grown since
    root = root.rstrip("/")
    try:
        info = fs.info(root)
        found = fs.find(root, detail=True) if info["type"] == "directory" else {root: info}
    except FileNotFoundError:
        found = {}
    files = [_remote_file(root, path, info) for path, info in found.items() if info.get("type") != "directory"]
    if not files:
        raise FileNotFoundError(f"There is nothing at {url}; check the address, and your credentials for it.")
    return fs, files


def _remote_file(root: str, path: str, info: dict[str, Any]) -> _RemoteFile:
    name = path[len(root) :].lstrip("/")
    if ".." in pathlib.PurePosixPath(name).parts:
        raise ValueError(f"The remote file name {path} contains '..' and is refused.")
    size = info.get("size")
    tag = next((str(info[key]) for key in ("etag", "ETag", "md5Hash", "LastModified", "mtime") if info.get(key)), "")
    return _RemoteFile(path, name, None if size is None else int(size), f"{size}-{tag}")


@dataclasses.dataclass(frozen=True)
class _Transfer:
    """Brings files into the staging folder of one download; its methods run in several threads."""

    fs: Any
    entry: _Entry
    progress: Progress
    task: TaskID
    stop: threading.Event = dataclasses.field(default_factory=threading.Event)

    def fetch(self, file: _RemoteFile) -> None:
        """Download one file, going on where an earlier attempt stopped."""
        part = self.entry.staged(file.name)
        part.parent.mkdir(parents=True, exist_ok=True)
        start = self._resume_point(file, part)
        self.progress.advance(self.task, start)
        if start == 0 or start != file.size:
            self._copy(file, part, start)
        if file.size is not None and part.stat().st_size != file.size:
            raise OSError(
                f"The download of {file.path} ended after {part.stat().st_size} of {file.size} bytes. "
                "Call again to go on where it stopped."
            )

    def _resume_point(self, file: _RemoteFile, part: pathlib.Path) -> int:
        """How many bytes of this very version of the file are there already; starts over where it has changed."""
        note = self.entry.staging / "versions" / part.relative_to(self.entry.staging)
        same = note.exists() and note.read_text() == file.version
        have = part.stat().st_size if same and part.exists() else 0
        if file.size is not None and 0 < have <= file.size:
            return have
        part.unlink(missing_ok=True)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(file.version)
        return 0

    def _copy(self, file: _RemoteFile, part: pathlib.Path, start: int) -> None:
        try:
            self._append(file, part, start)
        except ValueError:
            # fsspec's way to say that an HTTP server only sends whole files; block_size 0 takes them as a stream.
            self.progress.advance(self.task, -part.stat().st_size)
            part.unlink()
            self._append(file, part, 0, block_size=0)

    def _append(self, file: _RemoteFile, part: pathlib.Path, start: int, **options: Any) -> None:
        with self.fs.open(file.path, "rb", **options) as source, part.open("ab") as sink:
            if start:
                source.seek(start)
            while not self.stop.is_set() and (chunk := source.read(CHUNK_BYTES)):
                sink.write(chunk)
                self.progress.advance(self.task, len(chunk))
            sink.flush()
            os.fsync(sink.fileno())


def _publish(files: list[_RemoteFile], entry: _Entry) -> None:
    """Move the staged files into place, then write the manifest, then remove the staging folder."""
    sizes = {file.name: entry.staged(file.name).stat().st_size for file in files}
    entry.manifest.unlink(missing_ok=True)
    for file in files:
        target = entry.target / file.name if file.name else entry.target
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(entry.staged(file.name), target)
    draft = entry.manifest.with_suffix(".new")
    draft.write_text(json.dumps({"files": sizes}))
    os.replace(draft, entry.manifest)
    shutil.rmtree(entry.staging)


def _has_size(path: pathlib.Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())
