"""Demonstrations on disk: LeRobot v2.1 and v3.0 (read and written), RLDS/DROID, and made-up data.

Nothing here needs torch or the `lerobot` package: tables go through pyarrow, video through PyAV.
"""

from openpi.training.datasets.errors import BadSampleError, DatasetError
from openpi.training.datasets.metadata import Episode, Feature, Metadata, load_metadata, resolve_root
from openpi.training.datasets.reader import LeRobotDataset
from openpi.training.datasets.video import VideoSettings
from openpi.training.datasets.writer import LeRobotWriter

__all__ = [
    "BadSampleError",
    "DatasetError",
    "Episode",
    "Feature",
    "LeRobotDataset",
    "LeRobotWriter",
    "Metadata",
    "VideoSettings",
    "load_metadata",
    "resolve_root",
]
