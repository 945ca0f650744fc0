"""Stage 2 as the engine runs it for Monte-Carlo passes: what lies before the first Dropout once, the rest a pass.

The Dropout nodes of the graph are, in this order, PLACES. A study may close some of them or change their rate without
touching the weights: a node divides by (1 - ratio) of the graph, so the masks here carry the rest.
"""
import torch
from onnx import numpy_helper

import onnx_run

PLACES = ("attention", "head", "last")


class Passes:
    """candidate.onnx, cut at the first Dropout."""

    def __init__(self, model):
        self.constants = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy())
                          for t in model.graph.initializer}
        self.outputs = [o.name for o in model.graph.output]
        late, self.before, self.behind = set(), [], []
        for node in model.graph.node:
            if node.op_type == "Dropout" or any(n in late for n in node.input):
                late.update(node.output)
                self.behind.append(node)
            else:
                self.before.append(node)
        made = {name for node in self.before if node.op_type != "Constant" for name in node.output}
        self.carried = sorted(made & {n for node in self.behind for n in node.input})
        self.early = [name for name in self.outputs if name in made]
        dropouts = [node for node in self.behind if node.op_type == "Dropout"]
        assert len(dropouts) == len(PLACES), "the graph has other Dropout nodes than PLACES"

    def trunk(self, crops):
        """What the passes need of each crop, and the outputs that no Dropout reaches (attention)."""
        values = onnx_run.nodes_run(self.before, {**self.constants, "crop": crops})
        self.constants.update({n.output[0]: values[n.output[0]] for n in self.before
                               if n.op_type == "Constant"})
        return {name: values[name] for name in self.carried + self.early}

    def tail(self, carried, masks=None):
        """name -> tensor of the outputs behind the Dropouts."""
        values = onnx_run.nodes_run(self.behind, {**self.constants, **carried}, masks)
        return {name: values[name] for name in self.outputs if name in values}

    def shapes(self, carried):
        """Of what each Dropout is given."""
        values = onnx_run.nodes_run(self.behind, {**self.constants, **carried})
        return [values[node.input[0]].shape for node in self.behind if node.op_type == "Dropout"]

    def logits(self, carried, rates, ratio, passes, seed):
        """[N, passes] logits of stage 2. carried: a list, one entry a mirror image; pass n sees entry n % length."""
        generator = torch.Generator().manual_seed(seed)

        def masks():
            return [(torch.rand(shape, generator=generator) >= rate) * ((1 - ratio) / (1 - rate)) if rate
                    else torch.full((1,), 1 - ratio) for shape, rate in zip(shapes, rates)]
        with torch.no_grad():
            shapes = self.shapes(carried[0])
            return torch.cat([self.tail(carried[n % len(carried)], masks())["logit"] for n in range(passes)], 1)
