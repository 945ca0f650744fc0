"""Weights out of an exported graph: where a training goes on without the checkpoint it came from."""
import onnx
import torch
from onnx import numpy_helper


OPTIONAL = ("attention.gate.", "density.")     # a network without them goes on from a graph that has them


def load(net, path):
    """Puts the initialisers of the graph at `path` into `net`. Batch normalisation, which export.py has folded into the
    convolution before it, starts as the identity but for its bias."""
    graph = onnx.load(str(path)).graph
    given = {i.name: torch.from_numpy(numpy_helper.to_array(i).copy()) for i in graph.initializer}
    for node in graph.node:                # a Linear layer over tokens: its matrix has lost its name, not its place
        if node.op_type == "MatMul" and node.input[1] in given:
            layer = node.name.strip("/").rsplit("/", 1)[0].replace("/", ".")
            given[layer + ".weight"] = given.pop(node.input[1]).T.contiguous()
    state = net.state_dict()
    for name in [n for n in given if n.startswith(OPTIONAL) and n not in state]:
        given.pop(name)
    for name in state:
        if name in given:
            state[name] = given.pop(name)
    modules = dict(net.named_modules())
    names = list(modules)
    for name in [n for n in given if n.endswith(".bias")]:
        norm = modules[next(n for n in names[names.index(name[:-5]) + 1:] if isinstance(modules[n], torch.nn.BatchNorm3d))]
        prefix = next(n for n in names if modules[n] is norm)
        state[prefix + ".weight"] = torch.full_like(norm.weight, (1 + norm.eps)**0.5)
        state[prefix + ".bias"] = given.pop(name)
    if given:
        raise SystemExit(f"{path} does not fit the network: {sorted(given)}")
    net.load_state_dict(state)
