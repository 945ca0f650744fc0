"""Reference outputs of each operator of the contract, for the C engine's parity test.

    python3 train/dump_operators.py OUT [--shapes 20]

OUT/<operator>_<number>/model.onnx, input_<name>.npy, output_<name>.npy (fp32, C order), and
mask_<number>.npy (fp32 0/1, one a Dropout node in graph order) where a case has Dropout.
"""
import argparse
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

import onnx_run

F, I = np.float32, np.int64


class Case:
    """A small graph under construction; every node's output is one new tensor."""

    def __init__(self, rng):
        self.rng, self.nodes, self.constants, self.inputs, self.count = rng, [], [], {}, 0

    def input(self, *shape):
        name = f"x{len(self.inputs)}"
        self.inputs[name] = self.rng.normal(0, 1, shape).astype(F)
        return name

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def weight(self, *shape):
        fan = max(1, int(np.prod(shape[1:])))
        return self.constant(self.rng.normal(0, fan**-0.5, shape).astype(F))

    def node(self, operator, *inputs, outputs=1, **attributes):
        names = [f"t{self.count + i}" for i in range(outputs)]
        self.count += outputs
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def write(self, folder, outputs):
        folder.mkdir(parents=True, exist_ok=True)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, v.shape)
                for n, v in self.inputs.items()]
        named = [helper.make_node("Identity", [o], [f"y{i}"]) for i, o in enumerate(outputs)]
        ends = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None)
                for i in range(len(outputs))]
        graph = helper.make_graph(self.nodes + named, folder.name, info, ends, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
        model.ir_version = 7
        inputs = {n: torch.from_numpy(v) for n, v in self.inputs.items()}
        masks = self.masks(model, inputs)
        got = onnx_run.run(model, inputs, masks)
        for name, value in got.items():     # declared shapes come from the run itself
            at = int(name[1:])
            ends[at].CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape))
        del graph.output[:]
        graph.output.extend(ends)
        model.graph.CopyFrom(graph)
        onnx.checker.check_model(model)
        onnx.save(model, str(folder / "model.onnx"))
        for name, value in self.inputs.items():
            np.save(folder / f"input_{name}.npy", value)
        for name, value in got.items():
            np.save(folder / f"output_{name}.npy", np.ascontiguousarray(value.numpy()))
        for i, mask in enumerate(masks):
            np.save(folder / f"mask_{i}.npy", mask.numpy())

    def masks(self, model, inputs):
        """A random keep-mask of the right shape for each Dropout node."""
        out = []
        for node in model.graph.node:
            if node.op_type == "Dropout":
                probe = onnx.ModelProto()
                probe.CopyFrom(model)
                del probe.graph.output[:]
                probe.graph.output.append(
                    helper.make_tensor_value_info(node.input[0], TensorProto.FLOAT, None))
                shape = onnx_run.run(probe, inputs)[node.input[0]].shape
                out.append(torch.from_numpy((self.rng.random(shape) < 0.8).astype(F)))
        return out


def odd_side(rng, low=3, high=19):
    return int(rng.integers(low, high))


def image(case, channels=None):
    rng = case.rng
    channels = channels or int(rng.integers(1, 36))
    return case.input(int(rng.integers(1, 4)), channels, odd_side(rng), odd_side(rng),
                      odd_side(rng)), channels


def conv_node(case, x, channels_in, channels_out, kernel, stride, bias=True, pad=None):
    pad = kernel // 2 if pad is None else pad
    inputs = [x, case.weight(channels_out, channels_in, kernel, kernel, kernel)]
    if bias:
        inputs.append(case.constant(case.rng.normal(0, 1, channels_out).astype(F)))
    return case.node("Conv", *inputs, kernel_shape=[kernel] * 3, strides=[stride] * 3,
                     pads=[pad] * 6, dilations=[1] * 3, group=1)


def norm_node(case, x, channels):
    make = lambda a, b: case.constant(case.rng.uniform(a, b, channels).astype(F))
    return case.node("BatchNormalization", x, make(0.5, 1.5), make(-1, 1), make(-1, 1),
                     make(0.3, 2), epsilon=1e-5)


def conv(case):
    x, c = image(case)
    kernel, stride = int(case.rng.choice([1, 3, 5])), int(case.rng.choice([1, 2]))
    pad = int(case.rng.integers(0, 2)) * (kernel // 2) if kernel < 5 else 2
    return conv_node(case, x, c, int(case.rng.integers(1, 40)), kernel, stride,
                     case.rng.random() < 0.5, pad)


def conv_norm_relu(case):
    x, c = image(case)
    wide = int(case.rng.integers(1, 40))
    y = conv_node(case, x, c, wide, 3, int(case.rng.choice([1, 2])), case.rng.random() < 0.5)
    return case.node("Relu", norm_node(case, y, wide))


def conv_residual(case):
    x, c = image(case)
    y = case.node("Relu", conv_node(case, x, c, c, 3, 1))
    y = conv_node(case, y, c, c, int(case.rng.choice([1, 3])), 1)
    return case.node("Relu", case.node("Add", *([x, y] if case.rng.random() < 0.5 else [y, x])))


def batch_norm(case):
    x, c = image(case)
    return norm_node(case, x, c)


def max_pool(case):
    x, _ = image(case)
    kernel = int(case.rng.choice([2, 3]))
    return case.node("MaxPool", x, kernel_shape=[kernel] * 3, pads=[kernel // 2] * 6,
                     strides=[int(case.rng.choice([1, 2]))] * 3)


def resize(case):
    x, _ = image(case)
    scales = case.constant(np.array([1, 1] + [case.rng.choice([1, 2, 3])] * 3, F))
    return case.node("Resize", x, "", scales, mode="nearest", nearest_mode="floor",
                     coordinate_transformation_mode="asymmetric")


def concat(case):
    x, c = image(case)
    n, _, d, h, w = case.inputs[x].shape
    others = [case.input(n, int(case.rng.integers(1, 20)), d, h, w)
              for _ in range(int(case.rng.integers(1, 4)))]
    return case.node("Concat", x, *others, axis=1)


def two_shapes(case):
    """Equal shapes, a scalar, or a vector along the last axis: the broadcasts of the contract."""
    shape = [int(case.rng.integers(1, 9)) for _ in range(int(case.rng.integers(2, 6)))]
    other = [shape, [1], shape[-1:]][int(case.rng.integers(3))]
    return shape, other


def elementwise(operator):
    def make(case):
        shape, other = two_shapes(case)
        second = case.constant(case.rng.uniform(0.5, 2, other).astype(F))
        return case.node(operator, case.input(*shape), second)
    return make


def unary(operator):
    def make(case):
        x, _ = image(case)
        if operator == "Sqrt":
            x = case.node("Mul", x, x)
        return case.node(operator, x)
    return make


def gemm(case):
    rows, deep, wide = [int(case.rng.integers(1, 130)) for _ in range(3)]
    transposed = int(case.rng.integers(2))
    shape = (wide, deep) if transposed else (deep, wide)
    extra = [case.weight(wide)] if case.rng.random() < 0.7 else []
    return case.node("Gemm", case.input(rows, deep), case.weight(*shape), *extra, alpha=1.0,
                     beta=1.0, transB=transposed)


def matmul(case):
    batch, heads, rows, deep, wide = [int(case.rng.integers(1, n)) for n in (4, 5, 130, 40, 130)]
    if case.rng.random() < 0.5:
        return case.node("MatMul", case.input(batch, rows, deep), case.weight(deep, wide))
    return case.node("MatMul", case.input(batch, heads, rows, deep),
                     case.input(batch, heads, deep, wide))


def softmax(case):
    shape = [int(case.rng.integers(1, n)) for n in (4, 5, 20, 130)]
    return case.node("Softmax", case.input(*shape), axis=-1)


def layer_norm(case):
    batch, tokens, width = [int(case.rng.integers(2, n)) for n in (4, 126, 70)]
    x = case.input(batch, tokens, width)
    mean = case.node("ReduceMean", x, axes=[-1], keepdims=1)
    centred = case.node("Sub", x, mean)
    square = case.node("Pow", centred, case.constant(np.array(2, F)))
    variance = case.node("ReduceMean", square, axes=[-1], keepdims=1)
    root = case.node("Sqrt", case.node("Add", variance, case.constant(np.array(1e-5, F))))
    y = case.node("Mul", case.node("Div", centred, root), case.weight(width))
    return case.node("Add", y, case.weight(width))


def top_k_attention(case):
    """The exact order of operations of the contract, which the engine may fuse."""
    batch, heads, tokens, depth = int(case.rng.integers(1, 4)), int(case.rng.integers(1, 5)), \
        int(case.rng.integers(8, 126)), int(case.rng.choice([8, 16, 32]))
    keep = int(case.rng.integers(1, tokens + 1))
    q, k, v = (case.input(batch, heads, tokens, depth) for _ in range(3))
    scores = case.node("MatMul", q, case.node("Transpose", k, perm=[0, 1, 3, 2]))
    scores = case.node("Mul", scores, case.constant(np.array(depth**-0.5, F)))
    best, _ = case.node("TopK", scores, case.constant(np.array([keep], I)), outputs=2, axis=-1,
                        largest=1, sorted=1)
    least = case.node("ReduceMin", best, axes=[-1], keepdims=1)
    kept = case.node("Where", case.node("GreaterOrEqual", scores, least), scores,
                     case.constant(np.array(-1e9, F)))
    weights = case.node("Softmax", kept, axis=-1)
    received = case.node("ReduceMean", case.node("ReduceMean", weights, axes=[1], keepdims=0),
                         axes=[1], keepdims=0)
    return [case.node("MatMul", weights, v), received]


def gated_attention(case):
    """Keys chosen by a gate before any score is computed, in the order of operations of train/candidate.py."""
    rng = case.rng
    batch, heads, tokens, depth = [int(rng.integers(1, n)) for n in (4, 5, 126, 33)]
    wide, queries = int(rng.integers(1, 33)), tokens if rng.random() < 0.7 else int(rng.integers(1, 60))
    keep = int(rng.integers(1, tokens + 1))
    q, k, v = case.input(batch, heads, queries, depth), case.input(batch, heads, depth, tokens), \
        case.input(batch, heads, tokens, wide)
    gate = case.node("Mul", case.input(batch, 1, 1, tokens), case.constant(np.array(rng.choice([1, 3]), F)))
    best, _ = case.node("TopK", gate, case.constant(np.array([keep], I)), outputs=2, axis=-1, largest=1, sorted=1)
    least = case.node("ReduceMin", best, axes=[-1], keepdims=1)
    near = case.node("Sub", case.node("ReduceMax", gate, axes=[-1], keepdims=1), case.constant(np.array(6, F)))
    least = case.node("Where", case.node("GreaterOrEqual", least, near), least, near)
    kept = case.node("GreaterOrEqual", gate, least)
    scores = case.node("MatMul", q, k)
    if rng.random() < 0.8:
        factor = case.constant(np.array(depth**-0.5, F))
        scores = case.node("Mul", *([scores, factor] if rng.random() < 0.5 else [factor, scores]))
    if rng.random() < 0.8:
        scores = case.node("Add", *([scores, gate] if rng.random() < 0.5 else [gate, scores]))
    weights = case.node("Softmax", case.node("Where", kept, scores, case.constant(np.array(-1e9, F))), axis=-1)
    received = case.node("ReduceMean", case.node("ReduceMean", weights, axes=[1], keepdims=0), axes=[1], keepdims=0)
    return [case.node("MatMul", weights, v), received]


def dropout(case):
    rows, wide = [int(case.rng.integers(1, n)) for n in (8, 200)]
    x = case.node("Gemm", case.input(rows, wide), case.weight(32, wide), transB=1)
    x = case.node("Dropout", x, case.constant(np.array(0.2, F)))
    x = case.node("Relu", case.node("Gemm", x, case.weight(16, 32), transB=1))
    return case.node("Dropout", x, case.constant(np.array(case.rng.choice([0.2, 0.3, 0.5]), F)))


def shuffle(case):
    """Reshape, Transpose, Flatten, Squeeze, Unsqueeze, Slice, Gather, Split in one chain."""
    batch, tokens, heads, depth = [int(case.rng.integers(1, n)) for n in (4, 30, 5, 12)]
    x = case.input(batch, tokens, heads * depth)
    y = case.node("Reshape", x, case.constant(np.array([-1, tokens, heads, depth], I)))
    y = case.node("Transpose", y, perm=[0, 2, 1, 3])
    y = case.node("Unsqueeze", y, case.constant(np.array([1], I)))
    y = case.node("Squeeze", y, case.constant(np.array([1], I)))
    start = int(case.rng.integers(0, tokens))
    y = case.node("Slice", y, *[case.constant(np.array([v], I)) for v in (start, tokens, 2, 1)])
    head = case.node("Gather", y, case.constant(np.array(int(case.rng.integers(heads)), I)), axis=1)
    a, b = case.node("Split", case.node("Concat", head, head, axis=2),
                     case.constant(np.array([depth, depth], I)), outputs=2, axis=2)
    return [case.node("Flatten", y, axis=1), case.node("Add", a, b)]


def slice_steps(case):
    """Slice takes axes before steps: (data, starts, ends, axes, steps)."""
    x, _ = image(case)
    axis = int(case.rng.integers(2, 5))
    side = case.inputs[x].shape[axis]
    values = (int(case.rng.integers(0, side)), side, axis, int(case.rng.integers(1, 3)))
    return case.node("Slice", x, *[case.constant(np.array([v], I)) for v in values])


CASES = {
    "conv": conv, "conv_norm_relu": conv_norm_relu, "conv_residual": conv_residual,
    "batch_norm": batch_norm, "max_pool": max_pool, "resize": resize, "concat": concat,
    "add": elementwise("Add"), "sub": elementwise("Sub"), "mul": elementwise("Mul"),
    "div": elementwise("Div"), "relu": unary("Relu"), "sigmoid": unary("Sigmoid"),
    "sqrt": unary("Sqrt"), "identity": unary("Identity"), "gemm": gemm, "matmul": matmul,
    "softmax": softmax, "layer_norm": layer_norm, "top_k_attention": top_k_attention,
    "gated_attention": gated_attention,
    "dropout": dropout, "shuffle": shuffle, "slice": slice_steps,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--shapes", type=int, default=20)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, make in CASES.items():
        for number in range(args.shapes):
            case = Case(np.random.default_rng([number] + list(name.encode())))
            case.write(Path(args.out) / f"{name}_{number:02d}", make(case))
    print(f"{len(CASES) * args.shapes} cases of {len(CASES)} operators in {args.out}")


if __name__ == "__main__":
    main()
