"""Runs an ONNX graph of the contract's operators with PyTorch: the reference for the C engine.

One line an operator, each a direct call of PyTorch's own; it needs no checkpoint, only the file.
"""
import numpy as np
import torch
from onnx import numpy_helper
from torch.nn import functional as F


def attributes(node):
    out = {}
    for a in node.attribute:
        kind = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints"}[a.type]
        value = getattr(a, kind)
        out[a.name] = list(value) if kind.endswith("s") and kind != "s" else value
    return out


def padded(x, pads):
    """ONNX gives all begins, then all ends; PyTorch wants the last axis first."""
    n = len(pads) // 2
    flat = [p for i in reversed(range(n)) for p in (pads[i], pads[i + n])]
    return F.pad(x, flat) if any(pads) else x


def conv(x, w, b=None, strides=(1, 1, 1), pads=(0,) * 6, dilations=(1, 1, 1), group=1, **_):
    return F.conv3d(padded(x, pads), w, b, tuple(strides), 0, tuple(dilations), group)


def max_pool(x, kernel_shape, strides=(1, 1, 1), pads=(0,) * 6, **_):
    flat = [p for i in reversed(range(3)) for p in (pads[i], pads[i + 3])]
    return F.max_pool3d(F.pad(x, flat, value=-float("inf")), tuple(kernel_shape), tuple(strides))


def batch_norm(x, scale, bias, mean, var, epsilon=1e-5, **_):
    return F.batch_norm(x, mean, var, scale, bias, False, 0, epsilon)


def resize(x, *inputs, **_):
    """Nearest by whole factors, from scales or from sizes."""
    given = [i for i in inputs if i is not None and i.numel()][-1]
    factor = [round(float(given[i])) if given.is_floating_point() else int(given[i]) // x.shape[i]
              for i in range(x.dim())]
    for axis, times in enumerate(factor):
        x = x.repeat_interleave(times, axis) if times > 1 else x
    return x


def gemm(a, b, c=None, alpha=1.0, beta=1.0, transA=0, transB=0, **_):
    y = alpha * ((a.T if transA else a) @ (b.T if transB else b))
    return y if c is None else y + beta * c


def top_k(x, k, axis=-1, largest=1, **_):
    return torch.topk(x, int(k), dim=axis, largest=bool(largest))


def slice_of(x, starts, ends, axes=None, steps=None, **_):
    axes = range(x.dim()) if axes is None else axes.tolist()
    steps = [1] * len(starts) if steps is None else steps.tolist()
    for axis, a, b, step in zip(axes, starts.tolist(), ends.tolist(), steps):
        index = [slice(None)] * x.dim()
        index[axis] = slice(a, b, step)
        x = x[tuple(index)]
    return x


def reshape(x, shape, **_):
    return x.reshape([x.shape[i] if s == 0 else s for i, s in enumerate(shape.tolist())])


def squeeze(x, axes, **_):
    for axis in sorted((a % x.dim() for a in axes.tolist()), reverse=True):
        x = x.squeeze(axis)
    return x


def unsqueeze(x, axes, **_):
    for axis in sorted(a % (x.dim() + len(axes)) for a in axes.tolist()):
        x = x.unsqueeze(axis)
    return x


OPERATORS = {
    "Conv": conv, "MaxPool": max_pool, "BatchNormalization": batch_norm, "Resize": resize,
    "Relu": lambda x: torch.relu(x), "Sigmoid": lambda x: torch.sigmoid(x),
    "Add": lambda a, b: a + b, "Sub": lambda a, b: a - b, "Mul": lambda a, b: a * b,
    "Div": lambda a, b: a / b, "Pow": lambda a, b: a ** b, "Sqrt": lambda x: torch.sqrt(x),
    "MatMul": lambda a, b: a @ b, "Gemm": gemm, "TopK": top_k,
    "Concat": lambda *x, axis: torch.cat(x, axis),
    "Softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "ReduceMin": lambda x, axes, keepdims=1: x.amin(axes, bool(keepdims)),
    "ReduceMax": lambda x, axes, keepdims=1: x.amax(axes, bool(keepdims)),
    "ReduceMean": lambda x, axes, keepdims=1: x.mean(axes, bool(keepdims)),
    "GreaterOrEqual": lambda a, b: a >= b, "Where": lambda c, a, b: torch.where(c, a, b),
    "Transpose": lambda x, perm: x.permute(perm), "Reshape": reshape,
    "Flatten": lambda x, axis=1: x.flatten(axis) if axis == 1 else x.reshape(
        int(np.prod(x.shape[:axis])), -1),
    "Squeeze": squeeze, "Unsqueeze": unsqueeze, "Slice": slice_of, "Identity": lambda x: x,
    "Gather": lambda x, i, axis=0: x.index_select(axis, i.reshape(-1)).reshape(
        list(x.shape[:axis]) + list(i.shape) + list(x.shape[axis + 1:])),
    "Split": lambda x, sizes, axis=0: torch.split(x, sizes.tolist(), axis),
}


def nodes_run(nodes, known, masks=None):
    """name -> tensor: what is known and what the nodes make of it. Gradients flow where autograd is on."""
    values, masks = dict(known), list(masks or [])
    for node in nodes:
        has = attributes(node)
        args = [values[n] if n else None for n in node.input]
        if node.op_type == "Constant":
            got = torch.from_numpy(numpy_helper.to_array(has["value"]).copy())
        elif node.op_type == "Dropout":
            got = args[0] * masks.pop(0) / (1 - args[1]) if masks else args[0]
        else:
            got = OPERATORS[node.op_type](*args, **has)
        for name, value in zip(node.output, got if isinstance(got, tuple) else (got,)):
            values[name] = value
    return values


def run(model, inputs, masks=None):
    """name -> tensor of every output. masks: keep-masks (0/1) of the Dropout nodes in the order of
    the graph; without them Dropout passes its input through."""
    known = dict(inputs)
    for t in model.graph.initializer:
        known[t.name] = torch.from_numpy(numpy_helper.to_array(t).copy())
    with torch.no_grad():
        values = nodes_run(model.graph.node, known, masks)
    return {o.name: values[o.name] for o in model.graph.output}
