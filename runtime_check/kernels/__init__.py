"""Kernels for layers with sparse weights, as an execution provider that stock onnxruntime loads.

`runtime_check.load` uses it by itself. In your own code:

    import onnxruntime
    from runtime_check import kernels

    onnxruntime.register_execution_provider_library("sparse", kernels.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == kernels.get_ep_name()]
    options = onnxruntime.SessionOptions()
    options.add_provider_for_devices(devices[:1], {})  # one for each registration in this process
    session = onnxruntime.InferenceSession("model.onnx", options)
"""

from runtime_check.kernels.library import get_ep_name, get_library_path
from runtime_check.kernels.provider import Status, status
from runtime_check.kernels.report import Layer, layers

__all__ = ["Layer", "Status", "get_ep_name", "get_library_path", "layers", "status"]
