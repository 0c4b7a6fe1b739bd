"""Serve the checkpoints of a folder, a session each: openpi serve-sessions --checkpoints-dir DIR --codec ee."""

import dataclasses
import logging
import signal
from typing import Any, Literal


@dataclasses.dataclass(frozen=True)
class Args:
    """Options of `openpi serve-sessions`."""

    checkpoints_dir: str
    """Folder of an experiment, with its step folders: local, gs:// or s3://."""
    checkpoint: str | None = None
    """Checkpoint of sessions that ask for none; the latest, where this is not given."""
    codec: str = "ee"
    """ee, ee_joints, ee_traj, ee_joints_traj, joints_traj, droid, or FILE.py:NAME; none: observations and results as
    they are."""
    quaternion_order: Literal["wxyz", "xyzw"] = "wxyz"
    """Of the poses on the wire."""
    config_name: str = "pi05_positronic_lowmem"
    """Name of the training config."""
    host: str = "0.0.0.0"
    port: int = 8000
    in_memory: int = 1
    """Most checkpoints in memory; the least recently used one leaves."""
    default_prompt: str | None = None
    random_weights: bool = False
    """Random weights instead of those in the folders, for tests."""
    batch: int = 16
    batch_wait_ms: float = 2.0
    api_keys: tuple[str, ...] = ()
    tls_certificate: str | None = None
    tls_key: str | None = None
    max_message_mb: float = 4096.0


def main(args: Args) -> int:
    """Serve until SIGINT or SIGTERM."""
    import uvicorn

    from openpi.serving import addresses, background, memory

    addresses.check_free(args.host, args.port)
    addresses.tls_context(args.tls_certificate, args.tls_key)
    memory.keep_freed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn ends gracefully at it, and then gives it to us
    uvicorn.run(
        app(args),
        host=args.host,
        port=args.port,
        ws="websockets-sansio",
        ws_max_size=int(args.max_message_mb * 1e6),
        ws_per_message_deflate=False,
        ssl_certfile=args.tls_certificate,
        ssl_keyfile=args.tls_key,
        timeout_graceful_shutdown=10,
        log_level="warning",
    )
    return background.leave(0)


def app(args: Args) -> Any:
    """The application that the options describe."""
    from openpi.serving.batching import BatchOptions
    from openpi.serving.checkpoint_store import CheckpointStore
    from openpi.serving.sessions import SessionOptions, create_app
    from openpi.training import config as _config

    store, codec = CheckpointStore(args.checkpoints_dir), make_codec(args)
    logging.getLogger(__name__).info("Checkpoints of %s: %s", store.address, ", ".join(store.ids()) or "none yet")
    _config.get_config(args.config_name)  # an unknown one is told now, not to the first client
    options = SessionOptions(
        codec=codec,
        config_name=args.config_name,
        checkpoint=args.checkpoint,
        in_memory=args.in_memory,
        batch=BatchOptions(max_size=args.batch, max_wait_ms=args.batch_wait_ms),
        api_keys=args.api_keys,
    )
    return create_app(store, lambda checkpoint_id: load_policy(args, store.address_of(checkpoint_id), codec), options)


def make_codec(args: Args) -> Any:
    """The codec that the options name, None for "none"."""
    from openpi import codecs

    if args.codec == "none":
        return None
    return codecs.get(args.codec).with_quaternion_order(args.quaternion_order)


def load_policy(args: Args, address: str, codec: Any) -> Any:
    """A checkpoint's policy, warmed up with the codec's example."""
    from openpi.policies import policy_config
    from openpi.serving.batch_policy import BatchPolicy
    from openpi.serving.examples import example_for
    from openpi.shared import download
    from openpi.training import config as _config

    train_config = _config.get_config(args.config_name)
    if args.random_weights:
        policy = policy_config.create_random_policy(train_config, default_prompt=args.default_prompt)
    else:
        directory = download.up_to_date(address)
        policy = policy_config.create_trained_policy(train_config, directory, default_prompt=args.default_prompt)
    sizes = [2**n for n in range(args.batch.bit_length()) if 2**n < args.batch]
    batched = BatchPolicy(policy, [*sizes, args.batch])
    example = codec.encode(codec.example()) if codec else example_for(train_config)
    if example:
        batched.warm_up(example)
    return batched
