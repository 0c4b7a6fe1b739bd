"""Serve a policy over websockets: openpi serve --config NAME --dir CHECKPOINT | --env ROBOT | --random-weights."""

import dataclasses
import logging
import sys
from typing import Any, Literal

# Config and checkpoint that serve a robot where nothing else is asked for.
DEFAULTS = {
    "aloha": ("pi05_aloha", "gs://openpi-assets/checkpoints/pi05_base"),
    "aloha_sim": ("pi0_aloha_sim", "gs://openpi-assets/checkpoints/pi0_aloha_sim"),
    "droid": ("pi05_droid", "gs://openpi-assets/checkpoints/pi05_droid"),
    "libero": ("pi05_libero", "gs://openpi-assets/checkpoints/pi05_libero"),
}


@dataclasses.dataclass(frozen=True)
class Args:
    """Options of `openpi serve`."""

    config: str | None = None
    """Name of the training config."""
    dir: str | None = None
    """Checkpoint folder: local, gs:// or s3://."""
    env: Literal["aloha", "aloha_sim", "droid", "libero"] | None = None
    """Robot to serve with its published config and checkpoint, instead of --config and --dir."""
    random_weights: bool = False
    """Random weights instead of a checkpoint: right shapes, meaningless actions. For tests and load."""
    default_prompt: str | None = None
    """Prompt for observations that have none."""
    host: str = "0.0.0.0"
    port: int = 8000
    record: str | None = None
    """Folder to which every observation and result is written. Requests are not batched then."""
    batch: int = 16
    """Most requests in one run of the model; 1 turns batching off."""
    batch_wait_ms: float = 2.0
    """How long a request waits for company while fewer requests wait than clients are connected."""
    warm_up: bool = True
    """Compile and run the model before /healthz says ready."""
    api_keys: tuple[str, ...] = ()
    """Let in only clients that show one of these keys (Authorization: Api-Key ...)."""
    tls_certificate: str | None = None
    """PEM file; makes the address wss://."""
    tls_key: str | None = None
    max_message_mb: float | None = None
    """Largest observation taken; without it there is no limit."""
    max_clients: int = 1024
    replicas: int = 1
    """Processes with a policy each, behind one port."""
    devices: tuple[str, ...] = ()
    """CUDA devices dealt out to the replicas in turn."""
    unix_socket: str | None = None
    """Listen on this socket instead of host and port."""

    def __post_init__(self) -> None:
        if self.env and (self.config or self.dir):
            raise ValueError("--env stands for a config and a checkpoint: give it, or --config and --dir, not both.")
        if not self.env and not self.config:
            raise ValueError("Nothing to serve: give --config NAME with --dir CHECKPOINT, or --env ROBOT.")
        if not self.env and not self.dir and not self.random_weights:
            raise ValueError(f"Config '{self.config}' needs weights: give --dir CHECKPOINT or --random-weights.")
        if self.replicas < 1:
            raise ValueError(f"--replicas {self.replicas}: it takes 1 or more.")


def main(args: Args) -> int:
    """Serve until SIGINT or SIGTERM."""
    from openpi.serving import background

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    logging.getLogger("openpi.serving.websockets").setLevel(logging.WARNING)
    _check(args)
    service = _replicated(args) if args.replicas > 1 else _single(args)
    service.serve_forever()
    return background.leave(int(bool(service.failure)))


def _check(args: Args) -> None:
    """What can be known to be wrong before anything is loaded. Raises OSError."""
    from openpi.serving import addresses
    from openpi.shared import download

    directory = _named(args)[1]
    if "://" not in directory and not args.random_weights:
        download.maybe_download(directory)
    if not args.unix_socket:
        addresses.check_free(args.host, args.port)


def load_policy(args: Args) -> Any:
    """The policy that the options name, batched or recorded as they say."""
    from openpi.policies import policy as _policy
    from openpi.policies import policy_config
    from openpi.serving.batch_policy import BatchPolicy
    from openpi.training import config as _config

    name, directory = _named(args)
    train_config = _config.get_config(name)
    if args.random_weights:
        policy = policy_config.create_random_policy(train_config, default_prompt=args.default_prompt)
    else:
        policy = policy_config.create_trained_policy(train_config, directory, default_prompt=args.default_prompt)
    if args.record:
        return _policy.PolicyRecorder(policy, args.record)
    return BatchPolicy(policy, _sizes(args.batch)) if args.batch > 1 else policy


def replica_command(args: Args, socket_path: str) -> list[str]:
    """The command line of one replica of these options: one process, on a socket, open to the front alone."""
    plain = dataclasses.replace(
        args, replicas=1, devices=(), unix_socket=socket_path, api_keys=(), tls_certificate=None, tls_key=None
    )
    return [sys.executable, "-m", "openpi", "serve", *_flags(plain)]


def _named(args: Args) -> tuple[str, str]:
    name, directory = DEFAULTS[args.env] if args.env else (args.config, args.dir)
    return name or "", directory or ""


def _sizes(largest: int) -> list[int]:
    powers = [2**n for n in range(largest.bit_length()) if 2**n < largest]
    return [*powers, largest]


def _single(args: Args) -> Any:
    from openpi.serving import examples
    from openpi.serving.batching import BatchOptions
    from openpi.serving.websocket_policy_server import ServerOptions, WebsocketPolicyServer
    from openpi.training import config as _config

    train_config = _config.get_config(_named(args)[0])
    options = ServerOptions(
        batch=BatchOptions(max_size=args.batch, max_wait_ms=args.batch_wait_ms),
        example=examples.example_for(train_config) if args.warm_up else None,
        **_service_options(args),
    )
    metadata = examples.facts_for(train_config)
    return WebsocketPolicyServer(lambda: load_policy(args), args.host, args.port, metadata, options=options)


def _replicated(args: Args) -> Any:
    from openpi.serving.replicas import ReplicaServer
    from openpi.serving.service import ServiceOptions

    return ReplicaServer(
        lambda _, path: replica_command(args, path),
        args.replicas,
        args.host,
        args.port,
        devices=args.devices,
        options=ServiceOptions(**_service_options(args)),
    )


def _service_options(args: Args) -> dict[str, Any]:
    from openpi.serving import addresses

    limit = None if args.max_message_mb is None else int(args.max_message_mb * 1e6)
    return {
        "api_keys": args.api_keys,
        "tls": addresses.tls_context(args.tls_certificate, args.tls_key),
        "max_message_bytes": limit,
        "max_clients": args.max_clients,
        "unix_path": args.unix_socket,
    }


def _flags(args: Args) -> list[str]:
    """The options that differ from their defaults, as a command line."""
    flags: list[str] = []
    for field in dataclasses.fields(args):
        value, name = getattr(args, field.name), field.name.replace("_", "-")
        if value == field.default:
            continue
        if isinstance(value, bool):
            flags.append(f"--{name}" if value else f"--no-{name}")
        else:
            flags += [f"--{name}", *(value if isinstance(value, tuple) else [str(value)])]
    return flags
