"""MuJoCo with an off-screen renderer where there is one, and without where there is none.

`import mujoco` itself fails in some installations without OpenGL. Physics needs no OpenGL, so import
`mujoco` from here: rendering is then simply not available, and asking for it raises `RenderingError`.
"""

import importlib
import os
import sys
from types import ModuleType

DEFAULT_BACKEND = "egl"
_NO_LIBRARY = "its OpenGL library is missing or cannot start"


class RenderingError(RuntimeError):
    """No off-screen rendering library works on this machine."""

    def __init__(self, backend: str, cause: str) -> None:
        super().__init__(
            f"MuJoCo cannot render with MUJOCO_GL={backend}: {cause}. Install an off-screen OpenGL library "
            "(Debian, Ubuntu: `apt install libegl1 libgl1-mesa-dri` for MUJOCO_GL=egl, `apt install libosmesa6` "
            "for MUJOCO_GL=osmesa), or run without cameras."
        )


def _import_mujoco() -> tuple[ModuleType, str]:
    """MuJoCo, and why it cannot render (empty if it can)."""
    os.environ.setdefault("MUJOCO_GL", DEFAULT_BACKEND)
    try:
        module = importlib.import_module("mujoco")
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        cause = str(error) if isinstance(error, RuntimeError) else _NO_LIBRARY  # PyOpenGL's errors name no library
        return _import_without_rendering(), cause
    return module, "" if hasattr(module, "Renderer") else _NO_LIBRARY


def _import_without_rendering() -> ModuleType:
    for name in [name for name in sys.modules if name.partition(".")[0] == "mujoco"]:
        del sys.modules[name]
    requested = os.environ["MUJOCO_GL"]
    os.environ["MUJOCO_GL"] = "disable"
    try:
        return importlib.import_module("mujoco")
    finally:
        os.environ["MUJOCO_GL"] = requested


mujoco, _cannot_render = _import_mujoco()


def require_rendering() -> None:
    """Raise `RenderingError` when no off-screen renderer can be made."""
    if _cannot_render:
        raise RenderingError(os.environ["MUJOCO_GL"], _cannot_render)
