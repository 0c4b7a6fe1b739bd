import contextlib
import json
import threading
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import uvicorn
import websockets
import websockets.sync.client

from openpi import codecs
from openpi.serving import sessions
from openpi.serving.checkpoint_store import CheckpointStore
from openpi.serving.sessions import SessionOptions, create_app
from openpi_client import errors, msgpack_numpy
from openpi_client.async_client import ClientOptions
from openpi_client.session_client_policy import SessionClientPolicy

OPTIONS = ClientOptions(timeout_s=10, connect_timeout_s=10)
CODEC = codecs.get("ee")


class Stub:
    def __init__(self, name):
        self.name = name

    def infer(self, obs):
        if obs["prompt"] == "boom":
            raise RuntimeError("boom went the policy")
        actions = np.tile(np.asarray(obs["observation/state"], np.float32), (4, 1))
        return {"actions": np.concatenate([actions, np.zeros((4, 24))], axis=1), "state": np.zeros(3)}


class Loads:
    """Loads stubs, slowly where told to, and remembers what it loaded."""

    def __init__(self, delay_s=0.0):
        self.delay_s, self.names = delay_s, []

    def __call__(self, checkpoint_id):
        time.sleep(self.delay_s)
        self.names.append(checkpoint_id)
        if checkpoint_id == "checkpoint-666":
            raise ValueError("broken weights")
        return Stub(checkpoint_id)


@contextlib.contextmanager
def raw(port):
    address = f"ws://127.0.0.1:{port}/api/v1/session"
    with websockets.sync.client.connect(address, compression=None) as connection:
        yield connection


@contextlib.contextmanager
def serving(folder, load, **options):
    app = create_app(CheckpointStore(str(folder)), load, SessionOptions(**{"codec": CODEC, **options}))
    config = uvicorn.Config(
        app, "127.0.0.1", 0, ws="websockets-sansio", ws_per_message_deflate=False, log_level="error"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def folder(tmp_path):
    for step in ("1", "2", "checkpoint-10"):
        (tmp_path / step / "params").mkdir(parents=True)
    return tmp_path


def connect(port, checkpoint_id=None, **kwargs):
    return SessionClientPolicy("127.0.0.1", port, checkpoint_id, options=OPTIONS, **kwargs)


def get(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


def models(port):
    return json.loads(get(port, "/api/v1/models"))


def wait_for_health(port, words):
    deadline, said = time.monotonic() + 10, ""
    while words not in said:
        assert time.monotonic() < deadline, said
        try:
            said = f"200 {get(port, '/healthz')}"
        except urllib.error.HTTPError as error:
            said = f"{error.code} {error.read().decode()}"


def test_models_are_listed_as_they_appear(folder):
    with serving(folder, Loads(), preload=False) as port:
        assert models(port) == {"models": ["checkpoint-1", "checkpoint-2", "checkpoint-10"]}
        (folder / "11" / "params").mkdir(parents=True)
        assert models(port)["models"][-1] == "checkpoint-11"
        with connect(port) as session:
            assert session.get_server_metadata()["checkpoint_id"] == "checkpoint-11"


def test_latest_and_certain_checkpoints(folder):
    load = Loads()
    with serving(folder, load, config_name="pi05_x") as port:
        with connect(port) as session:
            meta = session.get_server_metadata()
            assert (meta["checkpoint_id"], meta["codec"], meta["config_name"]) == ("checkpoint-10", "ee", "pi05_x")
        for name in ("1", "checkpoint-1"):
            with connect(port, name) as session:
                assert session.get_server_metadata()["checkpoint_id"] == "checkpoint-1"
    assert load.names == ["checkpoint-10", "checkpoint-1"]


def test_actions_are_decoded(folder):
    observation = CODEC.example()
    with serving(folder, Loads()) as port, connect(port) as session:
        result = session.infer(observation)
        assert session.stats.reconnects == 0
    np.testing.assert_allclose(result["robot_command.pose"], [observation["robot_state.ee_pose"]] * 4)
    assert result["target_grip"].shape == (4, 1)
    assert result["actions"].shape == (4, 8)
    assert "infer_ms" in result["server_timing"]


def test_errors_do_not_end_the_session(folder):
    with serving(folder, Loads()) as port, connect(port) as session:
        with pytest.raises(errors.InferenceError, match=r"'robot_state.ee_pose' is missing"):
            session.infer({"grip": 0.5})
        with pytest.raises(errors.InferenceError, match="boom went the policy"):
            session.infer({**CODEC.example(), "task": "boom"})
        assert "actions" in session.infer(CODEC.example())
        assert session.stats.reconnects == 0


def test_an_unknown_checkpoint_lists_those_there_are(folder):
    with serving(folder, Loads()) as port, pytest.raises(errors.InferenceError, match="checkpoint-2, checkpoint-10"):
        connect(port, "3")


def test_a_checkpoint_that_cannot_be_loaded_says_why(folder):
    (folder / "666" / "params").mkdir(parents=True)
    with serving(folder, Loads(), preload=False) as port:
        with pytest.raises(errors.InferenceError, match="broken weights"):
            connect(port, "666")
        with connect(port, "1") as session:
            assert "actions" in session.infer(CODEC.example())


def test_loading_is_announced(folder, monkeypatch):
    monkeypatch.setattr(sessions, "FIRST_STATUS_S", 0.05)
    with serving(folder, Loads(delay_s=0.3), preload=False) as port, raw(port) as connection:
        first, second = (msgpack_numpy.unpackb(connection.recv(timeout=5)) for _ in range(2))
    assert (first["status"], second["status"]) == ("loading", "ready")
    assert first["message"] == "loading checkpoint-10"
    assert first["meta"] == second["meta"]
    assert first["meta"]["checkpoint_id"] == "checkpoint-10"


def test_a_client_that_knows_no_status_gets_its_result_after_the_first_message(folder, monkeypatch):
    monkeypatch.setattr(sessions, "FIRST_STATUS_S", 0.05)
    monkeypatch.setattr(sessions, "STATUS_EVERY_S", 0.05)
    loaded = threading.Event()
    monkeypatch.setattr(Loads, "__call__", lambda self, name: loaded.wait(5) and Stub(name))
    with serving(folder, Loads(), preload=False) as port, raw(port) as connection:
        while "meta" not in msgpack_numpy.unpackb(connection.recv(timeout=5)):
            pass
        connection.send(msgpack_numpy.packb(CODEC.example()))
        time.sleep(0.3)
        loaded.set()
        answers = [msgpack_numpy.unpackb(connection.recv(timeout=5))]
        while "result" not in answers[-1]:
            answers.append(msgpack_numpy.unpackb(connection.recv(timeout=5)))
    assert len(answers) <= 2  # one status may have been on its way when the observation was


def test_our_client_waits_until_the_checkpoint_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(sessions, "FIRST_STATUS_S", 0.05)
    load = Loads(delay_s=0.3)
    with serving(folder, load, preload=False) as port, connect(port) as session:
        assert load.names == ["checkpoint-10"]
        assert session.get_server_metadata()["codec"] == "ee"


def test_a_client_that_waits_no_longer_says_what_is_being_loaded(folder, monkeypatch):
    monkeypatch.setattr(sessions, "FIRST_STATUS_S", 0.05)
    loaded = threading.Event()
    monkeypatch.setattr(Loads, "__call__", lambda self, name: loaded.wait(10) and Stub(name))
    with serving(folder, Loads(), preload=False) as port:
        with pytest.raises(errors.ServerTimeoutError, match=r"not ready within 0\.5 s: loading checkpoint-10\."):
            SessionClientPolicy("127.0.0.1", port, options=ClientOptions(connect_timeout_s=0.5))
        loaded.set()
        with connect(port) as session:
            assert "actions" in session.infer(CODEC.example())


def test_the_least_recently_used_checkpoint_leaves(folder):
    load = Loads()
    with serving(folder, load, in_memory=2, preload=False) as port, contextlib.ExitStack() as stack:
        one, two = (stack.enter_context(connect(port, name)) for name in ("1", "2"))
        one.infer(CODEC.example())
        with connect(port, "10"):  # 2 leaves
            one.infer(CODEC.example())
            assert load.names == ["checkpoint-1", "checkpoint-2", "checkpoint-10"]
            assert "actions" in two.infer(CODEC.example())  # and comes back
    assert load.names[3:] == ["checkpoint-2"]


def test_a_checkpoint_that_was_deleted_is_told_to_its_session(folder):
    store = CheckpointStore(str(folder))
    with (
        serving(folder, lambda name: Stub(store.address_of(name)), preload=False) as port,
        connect(port, "1") as session,
        connect(port, "2"),  # 1 leaves memory
    ):
        (folder / "1" / "params").rmdir()
        with pytest.raises(errors.InferenceError, match=r"no checkpoint 'checkpoint-1' in .* checkpoint-10\.$"):
            session.infer(CODEC.example())


def test_requests_that_wait_are_counted_over_all_checkpoints(folder):
    asked, release = threading.Event(), threading.Event()

    class Slow(Stub):
        def infer(self, obs):
            if self.name == "checkpoint-1":
                asked.set()
                assert release.wait(10)
            return super().infer(obs)

    with (
        serving(folder, Slow, in_memory=2, preload=False) as port,
        connect(port, "1") as one,
        connect(port, "2") as two,
    ):
        waiting = threading.Thread(target=one.infer, args=(CODEC.example(),))
        waiting.start()
        assert asked.wait(10)
        assert "actions" in two.infer(CODEC.example())
        assert "openpi_waiting_requests 1.0" in get(port, "/metrics")
        release.set()
        waiting.join()


def test_api_key(folder):
    with serving(folder, Loads(), api_keys=["secret"]) as port:
        with connect(port, api_key="secret") as session:
            assert "actions" in session.infer(CODEC.example())
        with pytest.raises(errors.ServerRefusedError):
            connect(port)
        for path in ("/api/v1/models", "/metrics"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                get(port, path)
        wait_for_health(port, "200 OK\n")


@pytest.mark.parametrize("frame", ["text", b"", b"\xc1", msgpack_numpy.packb([1])])
def test_garbage_is_answered_by_an_error(folder, frame):
    with serving(folder, Loads()) as port, raw(port) as connection:
        connection.recv(timeout=5)
        connection.send(frame)
        assert "error" in msgpack_numpy.unpackb(connection.recv(timeout=5))
        connection.send(msgpack_numpy.packb(CODEC.example()))
        assert "result" in msgpack_numpy.unpackb(connection.recv(timeout=5))


def test_without_a_codec_everything_passes_as_it_is(folder):
    observation = {"observation/state": np.arange(3.0), "prompt": "go"}
    with serving(folder, Loads(), codec=None) as port, connect(port) as session:
        assert session.get_server_metadata()["codec"] == "none"
        np.testing.assert_array_equal(session.infer(observation)["state"], np.zeros(3))


def test_health_is_the_default_checkpoints(folder):
    (folder / "666" / "params").mkdir(parents=True)
    with serving(folder, Loads(delay_s=0.3)) as port:
        wait_for_health(port, "503 loading\n")
        wait_for_health(port, "500 failed: ValueError: broken weights\n")
        assert "openpi_ready 0.0" in get(port, "/metrics")
        with connect(port, "1"):
            wait_for_health(port, "200 OK\n")
            assert "openpi_ready 1.0" in get(port, "/metrics")


def test_a_server_without_checkpoints_waits_for_one(tmp_path):
    with serving(tmp_path, Loads()) as port:
        wait_for_health(port, "200 OK\n")
        with pytest.raises(errors.InferenceError, match="none at all"):
            connect(port)


def test_pictures_may_come_as_jpeg(folder):
    pytest.importorskip("PIL")
    observation = {**CODEC.example(), "image.wrist": np.full((480, 640, 3), 120, np.uint8)}
    options = ClientOptions(timeout_s=10, connect_timeout_s=10, jpeg_quality=90)
    with serving(folder, Loads()) as port, SessionClientPolicy("127.0.0.1", port, options=options) as session:
        assert "actions" in session.infer(observation)
        assert session.stats.bytes_sent < observation["image.wrist"].nbytes / 10
