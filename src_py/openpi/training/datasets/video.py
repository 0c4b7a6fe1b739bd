"""Video in and out through PyAV: frames by time, encoding, joining files without encoding them again."""

from __future__ import annotations

import collections
import dataclasses
import fractions
import pathlib
import threading
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

# Up to this many frames ahead it is cheaper to decode on than to seek.
_DECODE_AHEAD = 8


class VideoError(ValueError):
    """A video that cannot be opened, decoded, or has no frame where one is due."""


@dataclasses.dataclass(frozen=True)
class VideoSettings:
    """How frames are encoded. A key frame every `gop` frames makes random access cheap (2 decodes at most for 2)."""

    codec: str = "libx264"
    crf: int = 23
    gop: int = 2
    pixel_format: str = "yuv420p"

    def options(self) -> dict[str, str]:
        options = {"crf": str(self.crf), "g": str(self.gop)}
        # Without B-frames presentation order is decoding order, and files can be joined by shifting time stamps.
        return options | ({"bf": "0", "preset": "veryfast"} if self.codec == "libx264" else {})


class VideoDecoder:
    """One open video file; frames are asked for by time."""

    def __init__(self, path: pathlib.Path) -> None:
        try:
            self._container = av.open(str(path))
            self._stream: Any = self._container.streams.video[0]
        except (av.FFmpegError, OSError, IndexError) as error:
            raise VideoError(f"video {path.name} cannot be opened ({error})") from error
        self._stream.thread_type = "SLICE"
        self._path = path
        # One for all frames: what converts colours costs more to set up than to use on a small image.
        self._converter = VideoReformatter()
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._last: float | None = None

    def frame_at(self, seconds: float, tolerance_s: float) -> np.ndarray:
        """The frame shown at `seconds` of the file, uint8 [H, W, 3], at most `tolerance_s` away from it.

        Raises:
            VideoError: the file is broken there or ends before.
        """
        try:
            return self._find(seconds, tolerance_s)
        except av.FFmpegError as error:
            self._last = None
            raise VideoError(f"video {self._path.name} is broken near {seconds:.3f} s ({error})") from error

    def close(self) -> None:
        self._container.close()

    def _find(self, seconds: float, tolerance_s: float) -> np.ndarray:
        first = seconds - tolerance_s
        if self._last is None or not self._last < first <= self._last + _DECODE_AHEAD * 2 * tolerance_s:
            self._seek(seconds)
        for frame in self._frames:
            self._last = float(frame.time)
            if self._last > seconds + tolerance_s:
                break
            if self._last >= first:
                return self._converter.reformat(frame, format="rgb24", threads=1).to_ndarray()
        self._last = None
        raise VideoError(f"video {self._path.name} has no frame at {seconds:.3f} s")

    def _seek(self, seconds: float) -> None:
        # One time-base unit past the target: rounding must not select the key frame before the right one.
        self._container.seek(round(seconds / self._stream.time_base) + 1, stream=self._stream, backward=True)
        self._frames = self._container.decode(self._stream)


class VideoCache:
    """Open decoders, the last used ones kept, one thread at a time. Pickles as an empty cache."""

    def __init__(self, max_open: int = 16) -> None:
        self._max_open = max_open
        self._open: collections.OrderedDict[pathlib.Path, VideoDecoder] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        return type(self), (self._max_open,)

    def frame_at(self, path: pathlib.Path, seconds: float, tolerance_s: float) -> np.ndarray:
        """As `VideoDecoder.frame_at`, of the file `path`."""
        with self._lock:
            if path not in self._open:
                self._open[path] = VideoDecoder(path)
            self._open.move_to_end(path)
            while len(self._open) > self._max_open:
                self._open.popitem(last=False)[1].close()
            return self._open[path].frame_at(seconds, tolerance_s)


class VideoEncoder:
    """Encodes RGB frames into one file, one frame per 1/fps. Use as a context manager or call `close`."""

    def __init__(self, path: pathlib.Path, fps: float, height: int, width: int, settings: VideoSettings) -> None:
        if height % 2 or width % 2:
            raise ValueError(
                f"Images of {height}x{width} pixels cannot be encoded as {settings.pixel_format}: height and width "
                f"must be even. Resize them, or store them as dtype 'image'."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w")
        self._closed = False
        rate = fractions.Fraction(fps).limit_denominator(1001)
        stream: Any = self._container.add_stream(settings.codec, rate=rate, options=settings.options())
        self._stream, context = stream, stream.codec_context
        context.height, context.width, context.pix_fmt = height, width, settings.pixel_format
        # The muxer changes the stream's time base once it begins; frames keep counting in this one.
        self._period = 1 / rate
        context.time_base = self._period
        self.frames = 0

    def write(self, image: np.ndarray) -> None:
        """Append one frame, uint8 [H, W, 3]."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        frame.pts = self.frames
        frame.time_base = self._period
        self._container.mux(self._stream.encode(frame))
        self.frames += 1

    def close(self) -> None:
        """Finish the file; nothing more where it is finished."""
        if not self._closed:
            self._closed = True
            self._container.mux(self._stream.encode())
            self._container.close()

    def __enter__(self) -> VideoEncoder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def count_frames(path: pathlib.Path) -> int:
    """Number of frames in the file, by its index where it has one."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return stream.frames or sum(1 for packet in container.demux(stream) if packet.size)


def can_join(first: pathlib.Path, second: pathlib.Path) -> bool:
    """Whether the second file can follow the first in one stream (same codec, size and headers)."""
    with av.open(str(first)) as a, av.open(str(second)) as b:
        return _signature(a.streams.video[0]) == _signature(b.streams.video[0])


def _signature(stream: av.VideoStream) -> tuple:
    context = stream.codec_context
    return context.name, context.width, context.height, context.pix_fmt, bytes(context.extradata or b"")


def join_videos(parts: Sequence[pathlib.Path], target: pathlib.Path, fps: float) -> None:
    """Write the parts one after another into `target` without encoding again."""
    with av.open(str(target), "w") as output:
        stream: Any = None
        done = 0
        for part in parts:
            with av.open(str(part)) as source:
                template = source.streams.video[0]
                stream = stream or output.add_stream_from_template(template, opaque=True)
                done += _copy_packets(source, template, output, stream, done / fps)


def _copy_packets(
    source: av.container.InputContainer,
    template: Any,
    output: av.container.OutputContainer,
    stream: Any,
    start_s: float,
) -> int:
    shift = round(start_s / template.time_base)
    copied = 0
    packets: Any = source.demux(template)
    for packet in packets:
        if packet.dts is None:
            continue
        packet.pts += shift
        packet.dts += shift
        packet.stream = stream
        output.mux(packet)
        copied += 1
    return copied
