"""Every error that pyfacelat raises on purpose.

Each message names the argument or the file, the rule, and the value that broke it. All of them
derive from `FacelatError`, and also from the built-in exception a caller would expect.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DeviceError",
    "DownloadError",
    "ExportError",
    "FacelatError",
    "ImageError",
    "LandmarkError",
    "MissingPackageError",
    "MissingWeightsError",
    "NoFaceError",
    "NonFiniteError",
    "OutdirBusyError",
    "OutputError",
]


class FacelatError(Exception):
    """Base of all errors raised on purpose by pyfacelat."""


class CheckpointError(FacelatError, ValueError):
    """A weight file is malformed, hostile, or of a kind that is not supported.

    Attributes:
        file: name of the file, as given by the caller.
        place: where in the file (byte offset, entry or tensor name); "" when the file as a whole.
        reason: the rule that was broken, and the value that broke it.
    """

    def __init__(self, file: object, reason: str, place: str = "") -> None:
        self.file = str(file)
        self.place = place
        self.reason = reason
        super().__init__(f"{self.file}: {place + ': ' if place else ''}{reason}")

    def __reduce__(self) -> tuple[type[CheckpointError], tuple[str, str, str]]:
        return type(self), (self.file, self.reason, self.place)


class ConfigError(FacelatError, ValueError):
    """A setting has an unknown name, or a value out of range."""


class ImageError(FacelatError, ValueError):
    """An image cannot be read, or has a wrong size, mode, dtype or range."""


class NoFaceError(FacelatError, ValueError):
    """No face was found where one is needed."""


class LandmarkError(FacelatError, ValueError):
    """Landmarks have a wrong count, shape or value."""


class MissingPackageError(FacelatError, ImportError):
    """An optional package is needed and absent; the message says which one and how to get it."""


class MissingWeightsError(FacelatError, FileNotFoundError):
    """A weight file is needed and absent; the message says which one and where it goes."""


class NonFiniteError(FacelatError, RuntimeError):
    """A loss or a latent became NaN or infinite during a run."""


class DeviceError(FacelatError, RuntimeError):
    """The device is absent, out of memory, or cannot run what was asked."""


class DownloadError(FacelatError, RuntimeError):
    """A file cannot be fetched, or is not the one expected."""


class ExportError(FacelatError, RuntimeError):
    """An exported network does not compute what the network computes, or cannot be loaded."""


class OutdirBusyError(FacelatError, OSError):
    """Another run is writing to the same output directory."""


class OutputError(FacelatError, OSError):
    """A result cannot be written, say because the disk is full; `errno` tells why.

    Attributes:
        result: what could not be written, whole in memory, to be saved elsewhere.
    """

    def __init__(self, errno: int | None, message: str, result: object = None) -> None:
        super().__init__(errno, message)
        self.result = result

    def __str__(self) -> str:
        return str(self.args[-1])
