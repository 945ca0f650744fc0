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


def measure_norms(net, batches):
    """Gives the norms that load() made the mean and deviation of what these batches bring them; what the network computes
    stays. Without it a training begins with norms that do something else in each batch than what they had been folded to."""
    norms = [m for m in net.modules() if isinstance(m, torch.nn.BatchNorm3d)]
    sums = {m: [] for m in norms}

    def see(norm, given):
        x = given[0]
        sums[norm].append(torch.stack([x.mean((0, 2, 3, 4)), x.square().mean((0, 2, 3, 4))]))
    hooks = [m.register_forward_pre_hook(see) for m in norms]
    net.eval()
    with torch.no_grad():
        for batch in batches:
            net(batch)
        for norm, hook in zip(norms, hooks):
            hook.remove()
            mean, square = torch.stack(sums[norm]).mean(0)
            variance = (square - mean.square()).clamp(min=0)
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            norm.bias += scale * (mean - norm.running_mean)
            norm.weight.copy_(scale * (variance + norm.eps).sqrt())
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
