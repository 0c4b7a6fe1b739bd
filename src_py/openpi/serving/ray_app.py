"""The policy server as a Ray Serve application, for more robots than one machine can serve.

    serve run openpi.serving.ray_app:application config=pi05_droid checkpoints_dir=gs://bucket/run replicas=4 gpus=1

Websockets at `/` speak the published protocol with the latest checkpoint, at `/{checkpoint_id}` with another one:
each replica keeps several checkpoints in memory, and Ray sends requests to where theirs is loaded. Requests of
several robots are batched, replicas come and go with the load, and one that fails its health check is replaced.
Needs `pip install 'openpi[ray]'`; nothing else in this project does.
"""

import contextlib
import dataclasses
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import fastapi
from ray import serve
from ray.serve.handle import DeploymentHandle

from openpi.serving import examples, messages
from openpi.serving.batching import BatchOptions, InferenceThread
from openpi.serving.checkpoint_store import CheckpointStore
from openpi.serving.conversation import CLOSE_REASON
from openpi.serving.metrics import ServerMetrics
from openpi.training import config as _config
from openpi_client import msgpack_numpy

APPLICATION_ARGUMENTS = ("config", "checkpoints_dir", "random_weights", "default_prompt")

Load = Callable[[str], Any]
Resolve = Callable[[str | None], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RayOptions:
    """How many replicas, on what, and how requests are batched.

    replicas: so many, or at least so many where max_replicas is given. ongoing: requests per replica that autoscaling
    aims at. grow_after_s, shrink_after_s: how long a load lasts before it acts. models_in_memory: checkpoints that one
    replica holds. health_period_s: between health checks.
    """

    replicas: int = 2
    max_replicas: int = 0
    ongoing: int = 8
    grow_after_s: float = 10.0
    shrink_after_s: float = 600.0
    batch: int = 16
    batch_wait_ms: float = 5.0
    models_in_memory: int = 1
    cpus: float = 1
    gpus: float = 0
    health_period_s: float = 10.0

    def scaling(self) -> dict[str, Any]:
        """As Ray Serve's deployments take it."""
        if not self.max_replicas:
            return {"num_replicas": self.replicas}
        numbers = {"min_replicas": self.replicas, "max_replicas": self.max_replicas}
        delays = {"upscale_delay_s": self.grow_after_s, "downscale_delay_s": self.shrink_after_s}
        interval = {"metrics_interval_s": min(self.grow_after_s, 10.0), "look_back_period_s": self.grow_after_s}
        target = {"target_ongoing_requests": self.ongoing}
        return {"autoscaling_config": {**numbers, **target, **delays, **interval}}


def application(args: dict[str, str]) -> serve.Application:
    """For `serve run`: config, checkpoints_dir (or random_weights=true), default_prompt, and RayOptions' fields."""
    from openpi.cli import serve_sessions

    kinds = {field.name: field.type for field in dataclasses.fields(RayOptions)}
    if unknown := set(args) - {*kinds, *APPLICATION_ARGUMENTS}:
        known = ", ".join([*APPLICATION_ARGUMENTS, *kinds])
        raise ValueError(f"There is no argument {', '.join(sorted(unknown))}; there are {known}.")
    if "config" not in args:
        raise ValueError("Nothing to serve: give config=NAME, and checkpoints_dir=DIR or random_weights=true.")
    options = RayOptions(**{name: kinds[name](value) for name, value in args.items() if name in kinds})  # type: ignore
    plain = serve_sessions.Args(
        checkpoints_dir=args.get("checkpoints_dir", ""),
        config_name=args["config"],
        default_prompt=args.get("default_prompt"),
        random_weights=args.get("random_weights", "").lower() == "true",
        batch=options.batch,
    )
    store = None if plain.random_weights else CheckpointStore(plain.checkpoints_dir)

    def load(checkpoint_id: str) -> Any:
        return serve_sessions.load_policy(plain, store.address_of(checkpoint_id) if store else "", None)

    def random(wanted: str | None) -> str:
        return wanted or "random"

    metadata = examples.facts_for(_config.get_config(plain.config_name))
    return build(load, store.resolve if store else random, options, metadata)


def build(
    load: Load, resolve: Resolve, options: RayOptions, metadata: Mapping[str, Any] | None = None
) -> serve.Application:
    """Replicas that load policies by id, behind a front that knows which id a client means.

    `metadata` is what clients get first; the policy's own, where it is not given.
    """
    replicas = serve.deployment(
        _replica_class(load, resolve, options, metadata),
        max_ongoing_requests=4 * options.batch,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        health_check_period_s=options.health_period_s,
        graceful_shutdown_timeout_s=10.0,
        **options.scaling(),
    )
    front = serve.deployment(_front_class(resolve), max_ongoing_requests=1024, ray_actor_options={"num_cpus": 0.1})
    return front.bind(replicas.bind())


class _Loaded:
    """A policy and its thread, which ends when Ray lets go of it."""

    def __init__(self, inference: InferenceThread, policy: Any) -> None:
        self.inference, self.policy = inference, policy

    def __del__(self) -> None:
        self.inference.stop()


def _replica_class(load: Load, resolve: Resolve, options: RayOptions, said: Mapping[str, Any] | None) -> type:
    class PolicyReplica:
        def __init__(self) -> None:
            self._metrics = ServerMetrics()
            self._waiting = 0

        @serve.multiplexed(max_num_models_per_replica=options.models_in_memory)
        async def loaded(self, checkpoint_id: str) -> _Loaded:
            batch = BatchOptions(max_size=options.batch, max_wait_ms=options.batch_wait_ms)
            inference = InferenceThread(batch, self._metrics, lambda: self._waiting)
            policy = await inference.call(lambda: load(checkpoint_id))
            inference.use(policy)
            return _Loaded(inference, policy)

        async def metadata(self) -> bytes:
            loaded = await self.loaded(serve.get_multiplexed_model_id())
            return msgpack_numpy.packb(said or getattr(loaded.policy, "metadata", None) or {})

        async def answer(self, frame: bytes | str) -> bytes | str:
            """The packed result of one observation; text is an error."""
            self._waiting += 1
            try:
                observation = messages.decode(frame)
                loaded = await self.loaded(serve.get_multiplexed_model_id())
                result, infer_s = await loaded.inference.submit(observation)
                return msgpack_numpy.packb({**result, "server_timing": {"infer_ms": infer_s * 1e3}})
            except ValueError as error:
                return str(error)
            except Exception:
                return traceback.format_exc()
            finally:
                self._waiting -= 1

        async def check_health(self) -> None:
            resolve(None)  # raises where the checkpoints cannot be reached: this replica could load none

    return PolicyReplica


def _front_class(resolve: Resolve) -> type:
    app = fastapi.FastAPI(title="openpi on Ray Serve")

    @serve.ingress(app)
    class Front:
        def __init__(self, replicas: DeploymentHandle) -> None:
            self._replicas = replicas

        @app.get("/healthz")
        async def healthz(self) -> fastapi.Response:
            await self._replicas.options(multiplexed_model_id=resolve(None)).metadata.remote()
            return fastapi.Response("OK\n", media_type="text/plain")

        @app.websocket("/")
        async def latest(self, websocket: fastapi.WebSocket) -> None:
            await self._converse(websocket, None)

        @app.websocket("/{checkpoint_id}")
        async def certain(self, websocket: fastapi.WebSocket, checkpoint_id: str) -> None:
            await self._converse(websocket, checkpoint_id)

        async def _converse(self, websocket: fastapi.WebSocket, wanted: str | None) -> None:
            headers = [(name.encode(), value.encode()) for name, value in messages.offered().items()]
            await websocket.accept(headers=headers)
            with contextlib.suppress(fastapi.WebSocketDisconnect):
                if words := await _conversation(websocket, self._replicas, resolve, wanted):
                    await websocket.send_text(words)
                    await websocket.close(code=1011, reason=CLOSE_REASON)

    return Front


async def _conversation(
    websocket: fastapi.WebSocket, replicas: DeploymentHandle, resolve: Resolve, wanted: str | None
) -> str:
    """Metadata, then request by request, until the client leaves. Returns what went wrong, if anything did."""
    try:
        policy = replicas.options(multiplexed_model_id=resolve(wanted))
        await websocket.send_bytes(await policy.metadata.remote())
        while (message := await websocket.receive())["type"] != "websocket.disconnect":
            answer = await policy.answer.remote(message.get("bytes") or message.get("text") or b"")
            if isinstance(answer, str):
                return answer
            await websocket.send_bytes(answer)
    except fastapi.WebSocketDisconnect:
        return ""
    except Exception as error:  # no such checkpoint, or a replica that could not load it, or died
        return str(getattr(error, "cause", None) or error) or type(error).__name__
    return ""
