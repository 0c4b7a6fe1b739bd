"""Write training data through a codec: openpi convert recordings-to-lerobot --input DIR --output DIR --codec ee."""

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True)
class Args:
    """Options of `openpi convert recordings-to-lerobot`."""

    input: Path
    """Folder of episodes, one .npz each: robot_state.ee_pose, robot_state.q, grip, image.wrist, image.exterior,
    robot_command.pose, robot_command.joints, target_grip [t, ...] as the codec needs them, time [t] s, task."""
    output: Path
    """Folder of the LeRobot data set."""
    codec: str = "ee"
    fps: float | None = None
    """Frames per second; the codec's own, where this is not given."""
    resume: bool = False
    """Add the episodes to the data set that is in the folder already."""


def main(args: Args) -> int:
    """Convert every episode."""
    from rich.console import Console
    from rich.progress import track

    from openpi import codecs
    from openpi.codecs import recordings

    paths = sorted(args.input.glob("*.npz"))
    if not paths:
        raise FileNotFoundError(f"There are no .npz episodes in {args.input}.")
    console = Console(stderr=True)
    episodes = map(recordings.read, track(paths, "Converting", console=console, transient=True))
    number = recordings.write(codecs.get(args.codec), episodes, args.output, args.fps, resume=args.resume)
    print(f"{number} episodes in {args.output}")
    return 0
