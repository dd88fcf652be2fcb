"""The engine for CPUs: OpenVINO GenAI on a GGUF file, in a process of its own for each model."""

from weitiao.serving.openvino.engine import OpenVinoEngine, require_openvino

__all__ = ["OpenVinoEngine", "require_openvino"]
