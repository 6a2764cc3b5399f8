"""The landmark network for other engines: ONNX files, onnxruntime, TensorRT.

onnx, onnxruntime and tensorrt are imported when something needs them, never by importing this.
"""

from pyfacelat.export.fan import ExportOptions, ExportReport, cache_dir, export_fan
from pyfacelat.export.runtime import OrtFAN, OrtGraph, OrtLandmarkLoss, landmark_loss
from pyfacelat.export.tensorrt import TensorRTFAN

__all__ = [
    "ExportOptions",
    "ExportReport",
    "OrtFAN",
    "OrtGraph",
    "OrtLandmarkLoss",
    "TensorRTFAN",
    "cache_dir",
    "export_fan",
    "landmark_loss",
]
