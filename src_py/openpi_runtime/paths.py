"""Where the configuration and the robot descriptions lie, installed or in a checkout."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def config_dir() -> Path:
    """The folder `config/`: $OPENPI_CONFIG_DIR, else the installed openpi_bringup's, else the checkout's."""
    return _locate("OPENPI_CONFIG_DIR", "openpi_bringup", "config")


def urdf_dir() -> Path:
    """The folder `urdf/`: $OPENPI_URDF_DIR, else the installed openpi_description's, else the checkout's."""
    return _locate("OPENPI_URDF_DIR", "openpi_description", "urdf")


def _locate(variable: str, package: str, folder: str) -> Path:
    if override := os.environ.get(variable):
        return Path(override)
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        share = Path(prefix) / "share" / package / folder
        if prefix and share.is_dir():
            return share
    return REPOSITORY / folder
