"""Writes the folders tests/cases/infer-*: a malformed or unsupported ONNX file and the error that it must give.

    python3 tests/infer_hostile_make.py tests/cases
"""
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F, I = np.float32, np.int64


def const(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def model(nodes, constants=(), shape=(1, 2, 8, 8, 8), output="y", inputs=None, opset=13):
    inputs = inputs or [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    outs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "case", inputs, outs, list(constants))
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    made.ir_version = 7
    return made


def node(kind, inputs, outputs=("y",), **attributes):
    return helper.make_node(kind, list(inputs), list(outputs), name=f"the_{kind}", **attributes)


def conv(weights, **attributes):
    return model([node("Conv", ["x", "w"], **attributes)], [const("w", weights.astype(F))])


def edited(made, edit):
    edit(made)
    return made


def external(made):
    t = made.graph.initializer[0]
    t.ClearField("raw_data")
    t.data_location = TensorProto.EXTERNAL
    entry = t.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"


def dims(made, *sides):
    del made.graph.initializer[0].dims[:]
    made.graph.initializer[0].dims.extend(sides)


def wrap(tag, body):
    """One length-delimited protobuf field."""
    size, out = len(body), bytearray([tag << 3 | 2])
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out) + body


def nested(depth):
    """ModelProto.graph.node.attribute.g.node.attribute.g ...: protobuf-c would recurse to the end of the stack."""
    body = b""
    for _ in range(depth):
        body = wrap(1, wrap(5, wrap(6, body)))
    return wrap(7, body)


def cases():
    one = np.ones
    small = one((3, 2, 3, 3, 3))
    plain = conv(small)
    yield "cycle", "input", "cycle", model([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]),
                                            node("Relu", ["b"])])
    yield "self-cycle", "input", "cycle", model([node("Add", ["x", "y"])])
    yield "missing-initialiser", "input", "nothing makes it", model([node("Conv", ["x", "nowhere"])])
    yield "made-twice", "input", "made twice", model([node("Relu", ["x"]), node("Sigmoid", ["x"])])
    yield "input-overwritten", "input", "made twice", model([node("Relu", ["x"], ["x"]), node("Relu", ["x"])])
    yield "unknown-operator", "unsupported", "operator LSTM is not supported", model([node("LSTM", ["x", "x", "x"])])
    yield "other-domain", "unsupported", "com.example.Relu", model([node("Relu", ["x"], domain="com.example")])
    yield "control-flow", "unsupported", "If", model([helper.make_node(
        "If", ["x"], ["y"], then_branch=plain.graph, else_branch=plain.graph)])
    yield "external-data", "unsupported", "outside the file", edited(conv(small), external)
    yield "huge-dims", "limit", "elements", edited(conv(small), lambda m: dims(m, 2**40, 2**40, 2**40))
    yield "negative-dims", "input", "side -1", edited(conv(small), lambda m: dims(m, -1, 2, 3, 3, 3))
    yield "short-data", "input", "the file holds", edited(conv(small), lambda m: dims(m, 3, 2, 3, 3, 4))
    yield "double-weights", "unsupported", "element type 11", model([node("Conv", ["x", "w"])], [const("w", small)])
    yield "rank-7", "limit", "rank 7", model([node("Relu", ["w"])], [const("w", one((1,) * 7, F))])
    yield "input-rank-9", "limit", "rank 9", model([node("Relu", ["x"])], shape=(1,) * 9)
    yield "input-huge", "limit", "side", model([node("Relu", ["x"])], shape=(2**60,))
    yield "input-int", "unsupported", "not float", model([node("Identity", ["x"])], inputs=[
        helper.make_tensor_value_info("x", TensorProto.INT64, (4,))])
    yield "opset-9", "unsupported", "opset 9", model([node("Relu", ["x"])], opset=9)
    yield "wrong-channels", "input", "weights for 5 channels", conv(one((3, 5, 3, 3, 3)))
    yield "groups", "unsupported", "2 groups", conv(one((2, 1, 3, 3, 3)), group=2)
    yield "negative-pads", "limit", "pads holds -1", conv(small, pads=[-1] * 6)
    yield "stride-0", "limit", "strides holds 0", conv(small, strides=[0, 1, 1])
    yield "pads-count", "input", "pads has 5 numbers", conv(small, pads=[1] * 5)
    yield "kernel-beyond-input", "input", "a kernel of 9", conv(one((1, 2, 9, 3, 3)))
    yield "kernel-shape-lies", "input", "kernel_shape", conv(small, kernel_shape=[5, 3, 3])
    yield "auto-pad", "unsupported", "auto_pad", conv(small, auto_pad="SAME_UPPER")
    yield "weights-nan", "input", "NaN", conv(small * np.nan)
    yield "weights-computed", "unsupported", "weights must be constants", model([node("Conv", ["x", "x"])])
    yield "layer-overflows", "input", "layer the_Mul (Mul) gave NaN or infinity", model(
        [node("Mul", ["x", "w"], ["a"]), node("Relu", ["a"])], [const("w", np.array([3e38], F))])
    yield "conv-overflows", "input", "layer the_Conv (Conv) gave NaN or infinity", conv(small * 1e38)
    yield "batch-norm-training", "unsupported", "training_mode", model(
        [node("BatchNormalization", ["x", "s", "s", "s", "s"], training_mode=1)], [const("s", one(2, F))])
    yield "batch-norm-short", "input", "not a constant of 2 elements", model(
        [node("BatchNormalization", ["x", "s", "s", "s", "s"])], [const("s", one(3, F))])
    yield "reshape-misfit", "input", "do not fit", model([node("Reshape", ["x", "s"])], [const("s", np.array([7, -1], I))])
    yield "reshape-two-unknown", "input", "a side of -1", model(
        [node("Reshape", ["x", "s"])], [const("s", np.array([-1, -1], I))])
    yield "reshape-overflow", "input", "a side of", model(
        [node("Reshape", ["x", "s"])], [const("s", np.array([2**62, 2**62, 4], I))])
    yield "slice-step-0", "input", "a step of 0", model(
        [node("Slice", ["x", "a", "b", "a", "s"])], [const("a", np.array([0], I)), const("b", np.array([9], I)),
                                                     const("s", np.array([0], I))])
    yield "slice-empty", "unsupported", "empty slice", model(
        [node("Slice", ["x", "a", "a", "z"])], [const("a", np.array([3], I)), const("z", np.array([2], I))])
    yield "gather-beyond", "input", "index 99", model(
        [node("Gather", ["x", "i"], axis=2)], [const("i", np.array([0, 99], I))])
    yield "split-misfit", "input", "the parts have 5 of 8", model(
        [node("Split", ["x", "s"], ["y", "z"], axis=2)], [const("s", np.array([2, 3], I))])
    yield "concat-misfit", "input", "input 1 has", model(
        [node("Concat", ["x", "c"], axis=1)], [const("c", one((1, 2, 8, 8, 7), F))])
    yield "concat-axis", "input", "axis 9", model([node("Concat", ["x", "x"], axis=9)])
    yield "transpose-twice", "input", "no permutation", model([node("Transpose", ["x"], perm=[0, 1, 1, 3, 4])])
    yield "topk-beyond", "input", "K = 9 of 8", model(
        [node("TopK", ["x", "k"], ["y", "i"])], [const("k", np.array([9], I))])
    yield "matmul-misfit", "input", "columns times", model([node("MatMul", ["x", "w"])], [const("w", one((5, 4), F))])
    yield "gemm-rank", "input", "rank 5", model([node("Gemm", ["x", "w"])], [const("w", one((5, 4), F))])
    yield "broadcast-misfit", "input", "do not fit", model([node("Add", ["x", "w"])], [const("w", one((3,), F))])
    yield "residual-misfit", "input", "do not fit", model(
        [node("Conv", ["x", "w"], ["a"]), node("Relu", ["x"], ["b"]), node("Add", ["a", "b"])], [const("w", small.astype(F))])
    yield "dropout-ratio", "input", "ratio", model([node("Dropout", ["x", "r"])], [const("r", np.array(1.5, F))])
    yield "resize-fraction", "unsupported", "a factor of 1.5", model(
        [node("Resize", ["x", "", "s"], mode="nearest", nearest_mode="floor",
              coordinate_transformation_mode="asymmetric")], [const("s", np.array([1, 1, 1.5, 1, 1], F))])
    yield "resize-linear", "unsupported", "only nearest", model(
        [node("Resize", ["x", "", "s"], mode="linear")], [const("s", np.array([1, 1, 2, 2, 2], F))])
    yield "pool-padding", "input", "padding as wide", model(
        [node("MaxPool", ["x"], kernel_shape=[2] * 3, pads=[2] * 6)])
    yield "expand-constant-bomb", "limit", "folded constants", model(
        [node("Expand", ["c", "s"], ["b"]), node("Add", ["x", "b"])],
        [const("c", one((1,), F)), const("s", np.array([1, 1, 1000, 1000, 100], I))])
    yield "softmax-axis", "unsupported", "last axis", model([node("Softmax", ["x"], axis=1)])
    yield "no-inputs-given", "input", "it needs 2", model([node("Add", ["x"])])
    yield "nested-graphs", "limit", "nested deeper", nested(2000)
    yield "empty", "input", "no graph", b""
    yield "text", "input", "not an ONNX file", b"this is no protobuf at all, but text\n" * 3
    yield "truncated", "input", "break off", plain.SerializeToString()[:200]
    yield "no-output", "limit", "0 outputs", edited(model([node("Relu", ["x"])]), lambda m: m.graph.ClearField("output"))


def main():
    root = Path(sys.argv[1])
    for name, kind, text, made in cases():
        folder = root / f"infer-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        body = made if isinstance(made, bytes) else made.SerializeToString()
        (folder / "model.onnx").write_bytes(body)
        (folder / "expected").write_text(f"{kind}\n{text}\n")


if __name__ == "__main__":
    main()
