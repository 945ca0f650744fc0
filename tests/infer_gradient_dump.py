"""Gradients by PyTorch's autograd, for test_infer_gradient.c.

    python3 tests/infer_gradient_dump.py OUT

OUT/net_<n>/ and OUT/detector/: model.onnx, input_<name>.npy, by.txt ("<value> <element of output 0>"),
activation.npy and gradient.npy of that value.
"""
import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "train"))
import dump_operators as operators  # noqa: E402
import onnx_run  # noqa: E402


def net(case):
    """The detector's shape in small: residual, pooled branch, resize, concat, one logit map."""
    rng = case.rng
    channels, wide = int(rng.integers(1, 4)), int(rng.integers(4, 20))
    side = 4 * rng.integers(2, 6, 3)
    x = case.input(int(rng.integers(1, 3)), channels, *[int(s) for s in side])
    by = case.node("Relu", operators.norm_node(case, operators.conv_node(case, x, channels, wide, 3, 1), wide))
    y = case.node("Relu", operators.conv_node(case, by, wide, wide, 3, 1))
    y = case.node("Relu", case.node("Add", by, operators.conv_node(case, y, wide, wide, 3, 1)))
    if rng.random() < 0.5:
        low = case.node("MaxPool", y, kernel_shape=[2] * 3, pads=[0] * 6, strides=[2] * 3)
    else:
        low = operators.conv_node(case, y, wide, wide, 3, 2)
    low = case.node("Relu", operators.conv_node(case, low, wide, wide, 3, 1, False))
    up = case.node("Resize", low, "", case.constant(np.array([1, 1, 2, 2, 2], np.float32)), mode="nearest",
                   nearest_mode="floor", coordinate_transformation_mode="asymmetric")
    y = case.node("Concat", y, up, axis=1)
    y = case.node("Relu", operators.conv_node(case, y, 2 * wide, wide, 3, 1))
    y = operators.conv_node(case, y, wide, 1, 1, 1)
    return (case.node("Sigmoid", y) if rng.random() < 0.5 else y), by


def dump(folder, model, inputs, by, element):
    """Runs the nodes with autograd on; `by` becomes a leaf where it is made."""
    values = {k: torch.from_numpy(v) for k, v in inputs.items()}
    for t in model.graph.initializer:
        values[t.name] = torch.from_numpy(numpy_helper.to_array(t).copy())
    for node in model.graph.node:
        has = onnx_run.attributes(node)
        if node.op_type == "Constant":
            values[node.output[0]] = torch.from_numpy(numpy_helper.to_array(has["value"]).copy())
            continue
        got = onnx_run.OPERATORS[node.op_type](*[values[n] if n else None for n in node.input], **has)
        values[node.output[0]] = got
        if node.output[0] == by:
            values[by] = got.detach().requires_grad_(True)
    out = values[model.graph.output[0].name]
    if element is None:
        element = int(out.detach().argmax())
    out.reshape(-1)[element].backward()
    (folder / "by.txt").write_text(f"{by} {element}\n")
    np.save(folder / "activation.npy", np.ascontiguousarray(values[by].detach().numpy()))
    np.save(folder / "gradient.npy", np.ascontiguousarray(values[by].grad.numpy()))


def main():
    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    for number in range(20):
        case = operators.Case(np.random.default_rng([number, 77]))
        result, by = net(case)
        folder = out / f"net_{number:02d}"
        case.write(folder, result)
        model = onnx.load(str(folder / "model.onnx"))
        dump(folder, model, case.inputs, by, None)
    folder = out / "detector"
    folder.mkdir(exist_ok=True)
    model = onnx.load(str(ROOT / "models/detector.onnx"))
    onnx.save(model, str(folder / "model.onnx"))
    image = np.random.default_rng(5).random((1, 1, 48, 40, 56)).astype(np.float32) * 0.4
    image[:, :, 20:29, 17:25, 24:33] = 0.6
    np.save(folder / "input_image.npy", image)
    dump(folder, model, {"image": image}, "cam", None)


if __name__ == "__main__":
    main()
