"""The demo's report: one HTML file that needs nothing else, and the figures as JSON."""

import base64
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from openpi_msgs.msg import ExecutorState

from openpi_ros.episode_log import Episode
from openpi_runtime.robots import RobotSpec

_VIDEO_HZ = 12
_STYLE = (
    "body{font:15px sans-serif;max-width:60em;margin:2em auto;color:#223}"
    "td{padding:.2em 1em .2em 0}img,video{max-width:100%}"
)


def write_report(
    out: Path, robot: RobotSpec, policy: str, episodes: Sequence[Episode], state: ExecutorState | None
) -> dict[str, Any]:
    """Writes report.json and report.html into `out`; returns the figures."""
    summary = summarise(policy, episodes, state)
    (out / "report.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    (out / "report.html").write_text(_page(robot, summary, episodes), encoding="utf-8")
    return summary


def summarise(policy: str, episodes: Sequence[Episode], state: ExecutorState | None) -> dict[str, Any]:
    """The figures of a run.

    Returns:
        episodes, successes; control_hz: mean rate of commands on the node's clock; tick_jitter_ms: 99th
        percentile, on the node's clock; inference_ms: median; starved_ticks, clamped_ticks: of all episodes; policy.
    """
    jitter = [value for episode in episodes for value in episode.jitter_ms]
    inference = [value for episode in episodes for value in episode.inference_ms]
    return {
        "episodes": len(episodes),
        "successes": sum(episode.success for episode in episodes),
        "control_hz": round(float(np.mean([episode.control_hz for episode in episodes])), 3),
        "tick_jitter_ms": _quantile(jitter, 0.99),
        "inference_ms": _quantile(inference, 0.5),
        "starved_ticks": state.starved_ticks if state else 0,
        "clamped_ticks": state.clamped_ticks if state else 0,
        "policy": policy,
    }


def _quantile(values: Sequence[float], q: float) -> float | None:
    return round(float(np.quantile(values, q)), 3) if values else None


def _page(robot: RobotSpec, summary: dict[str, Any], episodes: Sequence[Episode]) -> str:
    rows = "".join(f"<tr><td>{html.escape(key)}</td><td>{value}</td></tr>" for key, value in summary.items())
    parts = [f"<h1>{html.escape(robot.description)}</h1><table>{rows}</table>"]
    for episode in episodes:
        outcome = "success" if episode.success else "no success"
        parts.append(f"<h2>Seed {episode.seed}: {outcome}</h2>{_video(episode)}{_joints(robot, episode)}")
    parts.append(f"<h2>Latency</h2>{_latency(episodes)}")
    return f'<!doctype html><meta charset="utf-8"><title>openpi demo</title><style>{_STYLE}</style>' + "\n".join(parts)


def _video(episode: Episode) -> str:
    if not episode.frames:
        return "<p>No images came.</p>"
    import av

    buffer = io.BytesIO()
    height, width, _ = episode.frames[0].shape
    with av.open(buffer, "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=_VIDEO_HZ)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for image in episode.frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<video controls loop muted autoplay src="data:video/mp4;base64,{data}"></video>'


def _joints(robot: RobotSpec, episode: Episode) -> str:
    """Measured and commanded joints of every group; a thin line at each chunk's observation."""
    figure, axes = _figure(len(robot.groups))
    times = np.array([time for time, _ in episode.measured])
    values = np.array([row for _, row in episode.measured])
    names = {column.name: number for number, column in enumerate(robot.state)}
    for axis, group in zip(axes, robot.groups, strict=True):
        columns = [names[column.name] for column in robot.state if column.group == group.name]
        if len(times):
            axis.plot(times, values[:, columns], linewidth=1)
        axis.set_prop_cycle(None)
        commands = episode.commands.get(group.name, [])
        if commands:
            at, rows = np.array([t for t, _ in commands]), np.array([row for _, row in commands])
            axis.plot(at, rows, linewidth=0.8, linestyle=":")
        for stamp in episode.chunks:
            axis.axvline(stamp, color="grey", linewidth=0.4)
        axis.set_title(f"{group.name}: measured (solid), commanded (dotted), chunk boundaries (grey)")
        axis.set_ylabel("rad; gripper 0 to 1")
        joints = [robot.state[column].joint for column in columns]
        axis.legend(joints, loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7)
    axes[-1].set_xlabel("s (node clock)")
    return _image(figure)


def _latency(episodes: Sequence[Episode]) -> str:
    figure, (axis,) = _figure(1)
    for name in ("inference_ms", "pipeline_ms"):
        values = [value for episode in episodes for value in getattr(episode, name)]
        if values:
            axis.hist(values, bins=30, alpha=0.6, label=f"{name}, median {np.median(values):.1f}")
    axis.set_xlabel("ms")
    axis.set_ylabel("chunks")
    axis.legend()
    return _image(figure)


def _figure(rows: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.2 * rows), layout="constrained")
    return figure, figure.subplots(rows, 1, squeeze=False)[:, 0]


def _image(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return f'<img src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}">'
