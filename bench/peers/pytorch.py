"""The detector in PyTorch: pytorch.py MODEL SIDE BATCH THREADS TILES LAYOUT

Rebuilds the ONNX graph, whose normalisations are folded already, from PyTorch's own layers, traces and freezes it, and
prints one JSON document: seconds of the clock and of the processors a tile. LAYOUT: plain, channels_last or mkldnn (its
blocked layout from the first convolution to the last).
"""

import json
import sys
import time

import onnx
import torch
from onnx import numpy_helper

path, layout = sys.argv[1], sys.argv[6]
side, batch, threads, tiles = (int(text) for text in sys.argv[2:6])


class Detector(torch.nn.Module):
    """Conv, Relu, Add, Concat, Resize by 2, in the file's order."""

    def __init__(self, graph):
        super().__init__()
        weights = {item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in graph.initializer}
        self.input, self.outputs = graph.input[0].name, [item.name for item in graph.output]
        self.steps, self.layers = [], torch.nn.ModuleList()
        for node in graph.node:
            if node.op_type == "Constant":
                continue
            layer = -1
            if node.op_type == "Conv":
                layer = len(self.layers)
                self.layers.append(self.convolution(node, weights))
            self.steps.append((node.op_type, list(node.input), node.output[0], layer))

    @staticmethod
    def convolution(node, weights):
        kept = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        kernel, pads = weights[node.input[1]], kept["pads"]
        assert pads[:3] == pads[3:] and kept.get("group", 1) == 1
        layer = torch.nn.Conv3d(kernel.shape[1], kernel.shape[0], tuple(kernel.shape[2:]), tuple(kept["strides"]),
                                tuple(pads[:3]), bias=True)
        layer.weight.data, layer.bias.data = kernel, weights[node.input[2]]
        return layer

    # PyTorch 1.13 has neither of the two operators for volumes in the blocked layout.
    @staticmethod
    def open(tensor):
        return tensor.to_dense() if tensor.is_mkldnn else tensor

    @staticmethod
    def packed(tensor, like):
        return tensor.to_mkldnn() if like.is_mkldnn else tensor

    def forward(self, image):
        values = {self.input: image}
        for kind, inputs, output, layer in self.steps:
            first = values[inputs[0]]
            if kind == "Conv":
                values[output] = self.layers[layer](first)
            elif kind == "Relu":
                values[output] = torch.relu(first)
            elif kind == "Add":
                values[output] = first + values[inputs[1]]
            elif kind == "Concat":
                values[output] = self.packed(torch.cat([self.open(values[name]) for name in inputs], 1), first)
            elif kind == "Resize":
                larger = torch.nn.functional.interpolate(self.open(first), scale_factor=2.0, mode="nearest")
                values[output] = self.packed(larger, first)
            else:
                raise SystemExit(f"no {kind} here")
        return tuple(values[name] for name in self.outputs)


torch.set_num_threads(threads)
torch.set_grad_enabled(False)
model = Detector(onnx.load(path).graph).eval()
image = torch.rand(batch, 1, side, side, side)
if layout == "channels_last":
    model, image = model.to(memory_format=torch.channels_last_3d), image.to(memory_format=torch.channels_last_3d)
if layout == "mkldnn":
    from torch.utils import mkldnn

    model = mkldnn.to_mkldnn(model)
    image = image.to_mkldnn()
else:
    model = torch.jit.freeze(torch.jit.trace(model, image))
for _ in range(2):
    model(image)
runs = -(-tiles // batch)
start, used = time.perf_counter(), time.process_time()
for _ in range(runs):
    model(image)
print(json.dumps({"wall_s": (time.perf_counter() - start) / runs / batch,
                  "processor_s": (time.process_time() - used) / runs / batch}))
