import os
from pathlib import Path

from setuptools import find_packages, setup

# launch/ and config/ lie at the top of the repository, where a reader finds them.
ROOT = Path(os.path.relpath(Path(__file__).resolve().parents[3]))


def installed(source: Path, target: str) -> list[tuple[str, list[str]]]:
    """data_files of a folder, its sub-folders included."""
    files = [path for path in sorted(source.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    return [(f"{target}/{path.parent.relative_to(source)}".removesuffix("/."), [str(path)]) for path in files]


setup(
    name="openpi_bringup",
    version="0.1.0",
    description="Starts stacks of openpi nodes",
    license="Apache-2.0",
    packages=find_packages(),
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/openpi_bringup"]),
        ("share/openpi_bringup", ["package.xml"]),
        *installed(ROOT / "launch", "share/openpi_bringup/launch"),
        *installed(ROOT / "config", "share/openpi_bringup/config"),
        *installed(Path("rviz"), "share/openpi_bringup/rviz"),
    ],
    install_requires=["setuptools"],
    extras_require={"test": ["pytest"]},
    zip_safe=False,
    entry_points={"console_scripts": ["openpi-up = openpi_bringup.up:main"]},
)
