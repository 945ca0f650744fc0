"""Reference outputs of what train/dump_operators.py leaves out: uncommon attributes, broadcasts, the operators that the
engine knows beyond the contract, and the parts of the attention chain by themselves.

    python3 tests/infer_operators_dump.py OUT [SHAPES]
"""
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "train"))
import dump_operators as operators  # noqa: E402
import onnx_run  # noqa: E402

I = np.int64


def conv_any(x, w, b=None, strides=None, pads=None, dilations=None, group=1, **_):
    """1 to 3 spatial axes, uneven padding, dilation."""
    n = x.dim() - 2
    run = [F.conv1d, F.conv2d, F.conv3d][n - 1]
    return run(onnx_run.padded(x, pads or [0] * 2 * n), w, b, tuple(strides or [1] * n), 0, tuple(dilations or [1] * n),
               group)


def max_pool_any(x, kernel_shape, strides=None, pads=None, dilations=None, **_):
    n = len(kernel_shape)
    run = [F.max_pool1d, F.max_pool2d, F.max_pool3d][n - 1]
    pads = pads or [0] * 2 * n
    flat = [p for i in reversed(range(n)) for p in (pads[i], pads[n + i])]
    return run(F.pad(x, flat, value=-float("inf")), tuple(kernel_shape), tuple(strides or [1] * n), 0,
               tuple(dilations or [1] * n))


def average_pool(x, kernel_shape, strides=None, pads=None, count_include_pad=0, **_):
    n = len(kernel_shape)
    run = [F.avg_pool1d, F.avg_pool2d, F.avg_pool3d][n - 1]
    return run(x, tuple(kernel_shape), tuple(strides or [1] * n), tuple((pads or [0] * 2 * n)[:n]), False,
               bool(count_include_pad))


def reduction(run):
    def go(x, axes_input=None, axes=None, keepdims=1, **_):
        axes = axes_input.tolist() if axes_input is not None else axes
        return run(x, axes if axes is not None else list(range(x.dim())), bool(keepdims))
    return go


onnx_run.OPERATORS.update({
    "Conv": conv_any, "MaxPool": max_pool_any, "AveragePool": average_pool,
    "ReduceMin": reduction(lambda x, a, k: x.amin(a, k)), "ReduceMax": reduction(lambda x, a, k: x.amax(a, k)),
    "ReduceMean": reduction(lambda x, a, k: x.mean(a, k)), "ReduceSum": reduction(lambda x, a, k: x.sum(a, k)),
    "GlobalAveragePool": lambda x: x.mean(list(range(2, x.dim())), True),
    "Exp": torch.exp, "Erf": torch.erf, "Tanh": torch.tanh,
    "Expand": lambda x, s: x.expand(torch.broadcast_shapes(x.shape, tuple(s.tolist()))),
    "Split": lambda x, sizes=None, axis=0, split=None: torch.split(
        x, sizes.tolist() if sizes is not None else split or x.shape[axis] // 2, axis),
    "Squeeze": lambda x, axes=None: x.squeeze() if axes is None else onnx_run.squeeze(x, axes),
    "Transpose": lambda x, perm=None: x.permute(perm or list(reversed(range(x.dim())))),
})


def sides(rng, rank, high=9):
    return [int(s) for s in rng.integers(1, high, rank)]


def conv_odd(case):
    rng = case.rng
    n = int(rng.integers(1, 4))
    c, wide = sides(rng, 2, 24)
    kernel, stride, dilation = sides(rng, n, 4), sides(rng, n, 4), sides(rng, n, 3)
    pads = [int(p) for p in rng.integers(0, 3, 2 * n)]
    x = case.input(int(rng.integers(1, 4)), c, *[int(s) for s in rng.integers(7, 15, n)])
    inputs = [x, case.weight(wide, c, *kernel)] + ([case.weight(wide)] if rng.random() < 0.5 else [])
    y = case.node("Conv", *inputs, kernel_shape=kernel, strides=stride, pads=pads, dilations=dilations_of(dilation))
    return case.node("Relu", y) if rng.random() < 0.5 else y


def dilations_of(values):
    return [int(v) for v in values]


def conv_broadcast_residual(case):
    """A sum that the convolution cannot take in place: the other operand is broadcast or read again later."""
    rng = case.rng
    c = int(rng.integers(1, 20))
    n, side = int(rng.integers(1, 3)), sides(rng, 3)
    x = case.input(n, c, *side)
    if rng.random() < 0.5:
        y = case.node("Add", operators.conv_node(case, x, c, c, 3, 1), case.input(n, c, 1, 1, 1))
        return case.node("Relu", y)
    skip = case.node("Relu", operators.conv_node(case, x, c, c, 1, 1))
    y = case.node("Relu", case.node("Add", operators.conv_node(case, skip, c, c, 3, 1), skip))
    return case.node("Add", y, skip)


def conv_chain_flatten(case):
    """Blocked layout, then plain operators: the reorder at the edge."""
    rng = case.rng
    c, wide = sides(rng, 2, 20)
    n, side = int(rng.integers(1, 4)), sides(rng, 3, 6)
    y = operators.conv_node(case, case.input(n, c, *side), c, wide, 3, 1)
    y = case.node("Sigmoid", y)
    flat = case.node("Flatten", y)
    pooled = case.node("ReduceMean", y, axes=[2, 3, 4], keepdims=0)
    return [case.node("Gemm", flat, case.weight(wide * int(np.prod(side)), 5)), pooled]


def pool_odd(kind):
    def make(case):
        rng = case.rng
        n = int(rng.integers(1, 4))
        kernel, stride = [int(k) for k in rng.integers(1, 4, n)], sides(rng, n, 4)
        half = [int(rng.integers(0, k // 2 + 1)) for k in kernel]
        x = case.input(int(rng.integers(1, 4)), int(rng.integers(1, 20)), *[int(s) for s in rng.integers(5, 12, n)])
        extra = {"count_include_pad": int(rng.integers(2))} if kind == "AveragePool" else {}
        return case.node(kind, x, kernel_shape=kernel, strides=stride, pads=half + half, **extra)
    return make


def reduce(kind):
    def make(case):
        rng = case.rng
        rank = int(rng.integers(1, 6))
        x = case.input(*sides(rng, rank))
        axes = sorted(rng.choice(rank, int(rng.integers(1, rank + 1)), replace=False).tolist())
        axes = [a - rank if rng.random() < 0.5 else a for a in axes]
        keep = int(rng.integers(2))
        if kind == "ReduceSum":
            return case.node(kind, x, case.constant(np.array(axes, I)), keepdims=keep)
        return case.node(kind, x, axes=axes, keepdims=keep) if rng.random() < 0.8 else case.node(kind, x, keepdims=keep)
    return make


def unary(kind):
    return lambda case: case.node(kind, case.input(*sides(case.rng, int(case.rng.integers(1, 6)), 12)))


def global_pool(case):
    x, _ = operators.image(case)
    return case.node("GlobalAveragePool", x)


def expand(case):
    rng = case.rng
    shape = sides(rng, int(rng.integers(1, 4)))
    low = [1 if rng.random() < 0.5 else s for s in shape][int(rng.integers(len(shape))):] or [1]
    return case.node("Expand", case.input(*low), case.constant(np.array(shape, I)))


def power(case):
    x = case.node("Exp", case.input(*sides(case.rng, 3)))
    return case.node("Pow", x, case.constant(np.float32(case.rng.choice([0.5, 2, 3, -1, 1.7]))))


def broadcast(kind):
    def make(case):
        rng = case.rng
        shape = sides(rng, int(rng.integers(2, 6)), 7)
        one = [1 if rng.random() < 0.3 else s for s in shape]
        two = [1 if rng.random() < 0.3 else s for s in shape][int(rng.integers(len(shape))):] or [1]
        b = case.node("Exp", case.input(*two))
        return case.node(kind, *([case.input(*one), b] if rng.random() < 0.5 else [b, case.input(*one)]))
    return make


def select(case):
    """GreaterOrEqual and Where by themselves."""
    shape = sides(case.rng, 4, 7)
    a, b = case.input(*shape), case.input(*shape[-2:])
    chosen = case.node("GreaterOrEqual", a, b)
    return case.node("Where", chosen, a, case.constant(np.float32(-3)))


def top_k(case):
    """Values alone, and a chain that must not be fused because the scores have another reader."""
    shape = sides(case.rng, 3, 20)
    k = int(case.rng.integers(1, shape[-1] + 1))
    x = case.input(*shape)
    best, _ = case.node("TopK", x, case.constant(np.array([k], I)), outputs=2, axis=-1, largest=1, sorted=1)
    least = case.node("ReduceMin", best, axes=[-1], keepdims=1)
    kept = case.node("Where", case.node("GreaterOrEqual", x, least), x, case.constant(np.float32(-1e9)))
    return [best, case.node("Softmax", kept, axis=-1), case.node("Relu", x)]


def top_k_softmax(case):
    """The chain without the products around it."""
    shape = sides(case.rng, 4, 12)
    k = int(case.rng.integers(1, shape[-1] + 1))
    x = case.node("Mul", case.input(*shape), case.constant(np.float32(0.3)))
    best, _ = case.node("TopK", x, case.constant(np.array([k], I)), outputs=2, axis=-1, largest=1, sorted=1)
    least = case.node("ReduceMin", best, axes=[-1], keepdims=1)
    kept = case.node("Where", case.node("GreaterOrEqual", x, least), x, case.constant(np.float32(-1e9)))
    return case.node("Softmax", kept, axis=-1)


def masked_odd(case):
    """Chains like attention over the keys that a mask keeps, none of which may become one operation: masks and biases of
    another shape, a fill that weighs something, scores with another reader, values that are made of the weights."""
    rng = case.rng
    kind = int(rng.integers(9))
    batch, heads, tokens, depth = [int(s) for s in rng.integers(2, 9, 4)]
    outer = [] if kind == 0 else [batch, heads]
    q, v = case.input(*outer, tokens, depth), case.input(*outer, tokens, depth)
    k = case.input(*outer, depth, tokens)
    mask = {0: [tokens], 1: [batch, 1, tokens, tokens], 2: [batch, heads, 1, tokens], 3: [batch, 1, 1, 1],
            4: [tokens, 1]}.get(kind, [batch, 1, 1, tokens])
    gate = case.input(*mask)
    kept = case.node("GreaterOrEqual", gate, case.constant(np.float32(-0.5)))
    scores = case.node("Mul", case.node("MatMul", q, k), case.constant(np.float32(0.3)))
    if kind == 5:
        scores = case.node("Add", scores, case.input(batch, 1, tokens, tokens))
    far = case.constant(np.float32(-1 if kind == 6 else -1e9))
    weights = case.node("Softmax", case.node("Where", kept, scores, far), axis=-1)
    if kind == 7:
        v = case.node("Mul", v, case.node("ReduceMean", weights, axes=[-1], keepdims=1))
    return [case.node("MatMul", weights, v), weights] + ([case.node("Relu", scores)] if kind == 8 else [])


def gemm_odd(case):
    rng = case.rng
    rows, deep, wide = sides(rng, 3, 40)
    ta, tb = [int(v) for v in rng.integers(0, 2, 2)]
    a = case.input(*((deep, rows) if ta else (rows, deep)))
    b = case.weight(*((wide, deep) if tb else (deep, wide)))
    bias = [[], [case.weight(wide)], [case.weight(1, wide)], [case.weight(rows, 1)], [case.weight(rows, wide)]]
    y = case.node("Gemm", a, b, *bias[int(rng.integers(5))], alpha=float(rng.choice([1, 0.5])),
                  beta=float(rng.choice([1, 2])), transA=ta, transB=tb)
    return case.node("Relu", y) if rng.random() < 0.3 else y


def matmul_odd(case):
    rng = case.rng
    batch, heads, rows, deep, wide = sides(rng, 5, 12)
    a = case.input(*[[batch, heads, rows, deep], [1, heads, rows, deep], [rows, deep]][int(rng.integers(3))])
    b = case.input(*[[batch, heads, deep, wide], [batch, 1, deep, wide], [heads, deep, wide]][int(rng.integers(3))])
    y = case.node("MatMul", a, b)
    return case.node("Add", y, case.weight(wide)) if rng.random() < 0.5 else y


def linear(case):
    """MatMul and bias over tokens, in either order, with and without Relu."""
    rng = case.rng
    deep, wide = sides(rng, 2, 40)
    y = case.node("MatMul", case.input(*sides(rng, int(rng.integers(1, 4))), deep), case.weight(deep, wide))
    y = case.node("Add", *([y, case.weight(wide)] if rng.random() < 0.5 else [case.weight(wide), y]))
    return case.node("Relu", y) if rng.random() < 0.5 else y


def move(case):
    rng = case.rng
    shape = [2 * s for s in sides(rng, int(rng.integers(2, 6)), 5)]
    rank = len(shape)
    x = case.input(*shape)
    perm = [int(p) for p in rng.permutation(rank)]
    y = case.node("Transpose", x, perm=perm) if rng.random() < 0.7 else case.node("Transpose", x)
    axis = int(rng.integers(rank))
    a, b = case.node("Split", y, outputs=2, axis=axis)
    index = rng.integers(-2, 2, (3,)).astype(I)
    g = case.node("Gather", x, case.constant(np.where(index < 0, index + shape[0], index)), axis=0)
    joined = case.node("Concat", b, a, axis=axis - rank)
    s = case.node("Slice", x, *[case.constant(np.array(v, I)) for v in ([0, -1], [-1, 1000], [0, rank - 1])])
    return [joined, g, s]


def joined(case):
    """Values that are joined along their channels, read before and after, and added to: what is written where it joins
    must not be written over."""
    rng = case.rng
    batch, side = int(rng.choice([1, 1, 1, 2])), [int(s) for s in 2 * rng.integers(4, 8, 3)]
    channels = int(rng.choice([1, 16]))
    x = case.input(batch, channels, *side)
    wide = [int(w) for w in rng.choice([16, 16, 32, 5], 3)]

    def conv(y, ins, outs):
        return case.node("Relu", operators.conv_node(case, y, ins, outs, 3, 1))

    a = conv(x, channels, wide[0])
    b = conv(a, wide[0], wide[1])
    if rng.random() < 0.5:
        b = case.node("Relu", case.node("Add", operators.conv_node(case, b, wide[1], wide[1], 3, 1), b))
    low = case.node("Relu", operators.conv_node(case, b, wide[1], wide[2], 3, 2))
    c = case.node("Resize", low, "", case.constant(np.array([1, 1, 2, 2, 2], np.float32)), mode="nearest",
                  nearest_mode="floor", coordinate_transformation_mode="asymmetric")
    parts = [[a, b, c][int(n)] for n in rng.permutation(3)]
    if rng.random() < 0.2:
        parts.append(parts[0])
    whole = case.node("Concat", *parts, axis=1)
    total = sum(wide[[a, b, c].index(p)] for p in parts)
    y = conv(whole, total, wide[0])
    z = case.node("Relu", case.node("Add", operators.conv_node(case, y, wide[0], wide[0], 3, 1), a))
    w = case.node("Relu", case.node("Add", operators.conv_node(case, z, wide[0], total, 3, 1), whole))
    last = conv(b, wide[1], 16) if rng.random() < 0.5 else conv(z, wide[0], 16)
    return [w, last, conv(whole, total, 16)] if rng.random() < 0.5 else [w, last]


def squeeze_all(case):
    shape = sides(case.rng, 3, 4)
    x = case.node("Unsqueeze", case.input(*shape), case.constant(np.array([0, -1], I)))
    return case.node("Squeeze", x)


CASES = {
    "conv_odd": conv_odd, "conv_broadcast_residual": conv_broadcast_residual, "conv_chain_flatten": conv_chain_flatten,
    "max_pool_odd": pool_odd("MaxPool"), "average_pool": pool_odd("AveragePool"), "global_pool": global_pool,
    "reduce_min": reduce("ReduceMin"), "reduce_max": reduce("ReduceMax"), "reduce_mean": reduce("ReduceMean"),
    "reduce_sum": reduce("ReduceSum"), "exp": unary("Exp"), "erf": unary("Erf"), "tanh": unary("Tanh"),
    "expand": expand, "power": power, "add_broadcast": broadcast("Add"), "sub_broadcast": broadcast("Sub"),
    "mul_broadcast": broadcast("Mul"), "select": select, "top_k": top_k, "top_k_softmax": top_k_softmax,
    "masked_odd": masked_odd,
    "gemm_odd": gemm_odd, "matmul_odd": matmul_odd, "linear": linear, "move": move, "joined": joined, "squeeze_all": squeeze_all,
}


def main():
    torch.set_num_threads(1)
    for name, make in CASES.items():
        number = tried = 0
        while number < int(sys.argv[2] if len(sys.argv) > 2 else 20):
            case = operators.Case(np.random.default_rng([tried] + list(name.encode())))
            tried += 1
            try:
                case.write(Path(sys.argv[1]) / f"{name}_{number:02d}", make(case))
            except RuntimeError as error:     # shapes that do not fit: PyTorch refuses them too
                if tried > 2000:
                    raise SystemExit(f"{name}: {error}")
                continue
            number += 1


if __name__ == "__main__":
    main()
