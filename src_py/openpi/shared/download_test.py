import functools
import http.server
import multiprocessing
import pathlib
import subprocess
import sys
import threading
import time

import fsspec
import pytest

from openpi.shared import download


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENPI_DATA_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def remote():
    """An empty in-memory bucket `memory://bucket`."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    yield fs
    fs.store.clear()


def put(fs, files):
    for name, data in files.items():
        fs.pipe_file(f"/bucket/{name}", data)


CHECKPOINT = {"ckpt/params/a": b"a" * 1000, "ckpt/params/b/c": b"c" * 10, "ckpt/assets/x/norm_stats.json": b"{}"}


def test_folder_comes_whole_and_is_not_fetched_again(remote, cache):
    put(remote, CHECKPOINT)
    path = download.maybe_download("memory://bucket/ckpt")
    assert path == cache / "bucket/ckpt"
    assert {p.relative_to(path.parent).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()} == CHECKPOINT
    put(remote, {"ckpt/params/a": b"changed"})
    assert (download.maybe_download("memory://bucket/ckpt") / "params/a").read_bytes() == b"a" * 1000
    assert (
        download.maybe_download("memory://bucket/ckpt", force_download=True) / "params/a"
    ).read_bytes() == b"changed"


def test_what_was_still_being_uploaded_comes_again(remote, monkeypatch):
    put(remote, {"ckpt/params/a": b"a"})
    assert not (download.up_to_date("memory://bucket/ckpt") / "params/b").exists()
    put(remote, CHECKPOINT)
    path = download.up_to_date("memory://bucket/ckpt")
    assert {p.relative_to(path.parent).as_posix(): p.read_bytes() for p in path.rglob("*") if p.is_file()} == CHECKPOINT
    monkeypatch.setattr(download, "_download", lambda *_: pytest.fail("downloaded again"))
    assert download.up_to_date("memory://bucket/ckpt") == path
    remote.store.clear()  # gone, or out of reach
    assert download.up_to_date("memory://bucket/ckpt") == path


def test_part_of_a_folder_does_not_stand_for_the_whole(remote):
    put(remote, CHECKPOINT)
    download.maybe_download("memory://bucket/ckpt/params")
    assert (download.maybe_download("memory://bucket/ckpt") / "assets/x/norm_stats.json").exists()


def test_lost_or_cut_file_is_fetched_again(remote):
    put(remote, CHECKPOINT)
    path = download.maybe_download("memory://bucket/ckpt")
    (path / "params/a").write_bytes(b"short")
    (path / "params/b/c").unlink()
    path = download.maybe_download("memory://bucket/ckpt")
    assert (path / "params/a").read_bytes() == b"a" * 1000
    assert (path / "params/b/c").exists()


def test_files_put_into_the_cache_by_hand_are_taken(cache):
    (cache / "big_vision").mkdir(parents=True)
    (cache / "big_vision/paligemma_tokenizer.model").write_bytes(b"mine")
    path = download.maybe_download("gs://big_vision/paligemma_tokenizer.model")
    assert path.read_bytes() == b"mine"


def test_nothing_there(remote):
    with pytest.raises(FileNotFoundError, match="nothing at memory://bucket/nowhere"):
        download.maybe_download("memory://bucket/nowhere")


def test_local_paths_stay_where_they_are(tmp_path):
    file = tmp_path / "weights.npz"
    file.write_bytes(b"x")
    assert download.maybe_download(str(file)) == file
    assert download.maybe_download(f"file://{file}") == file
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        download.maybe_download(tmp_path / "missing")


def test_dots_are_refused():
    with pytest.raises(ValueError, match=r"contains '\.\.'"):
        download.maybe_download("gs://bucket/../../etc/passwd")


def test_unwritable_cache_names_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("OPENPI_DATA_HOME", str(tmp_path / "file" / "cache"))
    with pytest.raises(OSError, match="OPENPI_DATA_HOME"):
        download.get_cache_dir()


def test_missing_package_says_what_to_install(monkeypatch):
    def no_package(url, **options):
        raise ImportError("Install s3fs")

    monkeypatch.setattr(fsspec.core, "url_to_fs", no_package)
    with pytest.raises(ImportError, match=r"openpi\[s3\]"):
        download.maybe_download("s3://bucket/x")


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `content`; may break off after `cut` bytes of the next answer, and may ignore ranges."""

    content = bytes(range(256)) * 400
    cut: int | None = None
    ranges = True
    etag = "one"
    delay = 0.0
    requested: tuple[int, ...] = ()

    def do_HEAD(self):
        self._answer(send_body=False)

    def do_GET(self):
        self._answer(send_body=True)

    def _answer(self, *, send_body):
        cls, start = type(self), 0
        header = self.headers.get("Range", "")
        partial = cls.ranges and header.startswith("bytes=")
        if partial:
            first, _, last = header.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last or 10**9) + 1, len(cls.content))
            body = cls.content[start:stop]
        else:
            body = cls.content
        self.send_response(206 if partial else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", cls.etag)
        if cls.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{start + len(body) - 1}/{len(cls.content)}")
        self.end_headers()
        if send_body:
            cls.requested = (*cls.requested, start)
            time.sleep(cls.delay)
            self.wfile.write(body[: cls.cut])
            self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    handler = type("Handler", (Server,), {})
    # Small reads, so that an answer cut in the middle leaves some of it behind.
    monkeypatch.setattr(download, "CHUNK_BYTES", 4096)
    http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=http_server.serve_forever, daemon=True).start()
    handler.url = f"http://127.0.0.1:{http_server.server_port}/weights.npz"
    yield handler
    http_server.shutdown()
    http_server.server_close()


OPTIONS = {"http": {"block_size": 8192, "cache_type": "none"}}


def interrupted_download(server, cache, *, keep):
    """Leave behind what a killed process leaves: the first `keep` bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download._Transfer, "_append", functools.partialmethod(_append_some, keep=keep))
        with pytest.raises(OSError, match=f"ended after {keep} of {len(server.content)} bytes"):
            download.maybe_download(server.url, **OPTIONS)
    assert not any(p.name == "weights.npz" for p in cache.rglob("*") if p.is_file())


def _append_some(self, file, part, start, *, keep):
    part.write_bytes(Server.content[:keep])


def test_http(server):
    assert download.maybe_download(server.url, **OPTIONS).read_bytes() == server.content


def test_interrupted_download_goes_on(server, cache):
    interrupted_download(server, cache, keep=50_000)
    server.requested = ()
    assert download.maybe_download(server.url, **OPTIONS).read_bytes() == server.content
    assert min(start for start in server.requested if start) == 50_000


def test_interrupted_download_of_a_changed_file_starts_over(server, cache):
    interrupted_download(server, cache, keep=50_000)
    server.content, server.etag = bytes(reversed(server.content)), "two"
    assert download.maybe_download(server.url, **OPTIONS).read_bytes() == server.content


def test_interrupted_download_from_a_server_without_ranges(server, cache):
    server.ranges = False
    interrupted_download(server, cache, keep=50_000)
    assert download.maybe_download(server.url, **OPTIONS).read_bytes() == server.content


def test_broken_connection_leaves_nothing_that_looks_complete(server, cache):
    server.cut = 3000
    with pytest.raises(Exception):  # noqa: B017, PT011  (aiohttp's or ours, depending on where it breaks)
        download.maybe_download(server.url, **OPTIONS)
    assert not (cache / pathlib.Path(server.url).parts[1] / "weights.npz").exists()
    server.cut = None
    assert download.maybe_download(server.url, **OPTIONS).read_bytes() == server.content


def test_killed_process_leaves_nothing_that_looks_complete(server, cache):
    code = (
        "import sys; from openpi.shared import download; download.CHUNK_BYTES = 4096;"
        "download.maybe_download(sys.argv[1], http={'block_size': 8192, 'cache_type': 'none'})"
    )
    server.delay = 0.05
    process = subprocess.Popen([sys.executable, "-c", code, server.url])
    try:
        deadline = time.monotonic() + 60
        while not any(p.stat().st_size for p in cache.rglob(".partial/file")):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    server.delay = 0.0
    assert not any(p.name == "weights.npz" and p.is_file() for p in cache.rglob("*"))
    assert download.maybe_download(server.url, **OPTIONS).read_bytes() == server.content


def test_two_processes_download_once(server):
    context = multiprocessing.get_context("spawn")
    with context.Pool(2) as pool:
        paths = pool.map(functools.partial(download.maybe_download, **OPTIONS), [server.url] * 2)
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == server.content
    assert server.requested == server.requested[:1], "the second process downloaded it too"
