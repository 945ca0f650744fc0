"""Writes models/detector.onnx, candidate.onnx and model.json from the checkpoints in runs/.

    python3 train/export.py [--out ../models]

Stage 2 comes from runs/head.pt (train_head.py) where there is one, else from runs/candidate.pt (train_candidate.py); the
graphs that judge a host (of runs/head-HOST.pt, or detector-c.pt and candidate-c.pt for those of fold c) go to
judges/HOST/ or judges/c/ (judge.py). A graph whose checkpoint is not at hand stays as it is. The exported graphs are run by onnx_run.py and
must agree with PyTorch before anything is written.
"""
import argparse
import json
import os
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

import decode
import judge
import maps
import onnx_run
import split as splits
from candidate import SIDE, Candidate
from detector import Detector

VERSION = "0.7.1"
DROPOUT = 0.2
FLIPS = 4      # mirror images of a crop that stage 2 sees: 1, 2, 4 or 8 (cross_validate.py, inference_study.py)


def fold_norms(net):
    """Batch normalisation into the convolution before it: fewer passes over memory in the engine."""
    for module in net.modules():
        names = list(module._modules)
        for name, following in zip(names, names[1:]):
            conv, norm = module._modules[name], module._modules[following]
            if isinstance(conv, nn.Conv3d) and isinstance(norm, nn.BatchNorm3d):
                module._modules[name] = nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
                module._modules[following] = nn.Identity()
    return net


def to_onnx(net, example, path, inputs, outputs):
    axes = {name: {0: "N"} for name in inputs + outputs}
    if inputs == ["image"]:
        for i, side in ((2, "D"), (3, "H"), (4, "W")):
            axes["image"][i] = side
            for name in outputs:
                axes[name][i] = side + "_4"
    for module in net.modules():      # dropout must be in training mode or the exporter drops it
        if isinstance(module, nn.Dropout):
            module.train()
    torch.onnx.export(net, example, str(path), opset_version=13, input_names=inputs,
                      output_names=outputs, dynamic_axes=axes, do_constant_folding=True,
                      training=torch.onnx.TrainingMode.PRESERVE)
    net.eval()


def tidy(model, cam_layer=None):
    """Dropout without its training_mode input (so that any runtime passes it through); a readable
    name for the tensor whose HiResCAM is taken; initialisers that nothing uses dropped."""
    graph = model.graph
    for node in graph.node:
        if node.op_type == "Dropout":
            del node.input[2:]
            del node.output[1:]
        if cam_layer:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == cam_layer:
                        names[i] = "cam"
    used = {name for node in graph.node for name in node.input}
    while True:
        idle = [n for n in graph.node if n.op_type == "Constant" and n.output[0] not in used]
        if not idle:
            break
        for node in idle:
            graph.node.remove(node)
    keep = [t for t in graph.initializer if t.name in used]
    del graph.initializer[:]
    graph.initializer.extend(keep)
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    return model


def cam_tensor(model):
    """The Relu at stride 4 that enters the join of detail and context. Behind the join a residual
    path leads straight to the heatmap, so a map taken there lights a single cell."""
    made_by = {name: node for node in model.graph.node for name in node.output}
    join = next(n for n in model.graph.node if n.op_type == "Concat")
    return next(name for name in join.input if made_by[name].op_type == "Relu")


def fine_cam_tensor(model):
    """The Relu at stride 2 that enters the second halving, by the same gradient: cells of 2 mm. On the validation
    copies its hottest voxel lay in 76 of 76 masks (through a B-spline), that of the join's cells of 4 mm in 62 (trilinear; 66
    through a B-spline)."""
    halves = [n for n in model.graph.node if n.op_type == "Conv" and
              any(a.name == "strides" and list(a.ints) == [2, 2, 2] for a in n.attribute)]
    return halves[1].input[0]


def compare(model, net, example, what):
    with torch.no_grad():
        want = net(example)
    got = onnx_run.run(model, {model.graph.input[0].name: example})
    for name, w in zip([o.name for o in model.graph.output], want):
        worst = (got[name] - w).abs().max().item()
        print(f"{what} {name}: {tuple(w.shape)} differs by {worst:.2e}")
        assert worst < 1e-3, "the exported graph is not the network"


def write_model(path, model):
    onnx.save(model, str(path) + ".part")
    os.replace(str(path) + ".part", path)


def export_detector(checkpoint, scratch, out):
    net = Detector()
    net.load_state_dict(torch.load(checkpoint)["average"])
    net = fold_norms(net.eval())
    to_onnx(net, torch.rand(1, 1, 32, 32, 32), scratch, ["image"], ["heatmap", "offset", "log_diameter"])
    model = onnx.load(str(scratch))
    model = tidy(model, cam_tensor(model))
    compare(model, net, torch.rand(2, 1, 40, 32, 48), "detector")
    write_model(out, model)


def candidate_graph(checkpoint, scratch):
    net = fold_norms(Candidate.of(torch.load(checkpoint)["average"], DROPOUT))
    to_onnx(net, torch.rand(2, 1, SIDE, SIDE, SIDE), scratch, ["crop"],
            ["logit", "texture", "log_diameter", "attention"])
    model = tidy(onnx.load(str(scratch)))
    compare(model, net, torch.rand(3, 1, SIDE, SIDE, SIDE), checkpoint.stem)
    return model


def export_graphs(runs, out, judges):
    """What has a checkpoint: the graphs that ship, and for each host that they have seen those that have not."""
    scratch = runs / "export.onnx"
    if (runs / "detector.pt").exists():
        export_detector(runs / "detector.pt", scratch, out / "detector.onnx")
    stage_2 = next((path for path in (runs / "head.pt", runs / "candidate.pt") if path.exists()), None)
    if stage_2:
        write_model(out / "candidate.onnx", candidate_graph(stage_2, scratch))
    for path in sorted(runs.glob("head-*.pt")):
        folder = made(judges / path.stem[5:])
        judge.write_head(folder, candidate_graph(path, scratch), out / "candidate.onnx")
    for fold in splits.ANEW:
        detector, candidate = (runs / f"{stage}-{fold}.pt" for stage in ("detector", "candidate"))
        if ended(detector) and ended(candidate):      # one alone would judge beside what has seen its hosts
            folder = made(judges / fold)
            export_detector(detector, scratch, folder / "detector.onnx")
            write_model(folder / "candidate.onnx", candidate_graph(candidate, scratch))


def ended(checkpoint):
    """Whether it is there and its training over (checkpoints of before do not say)."""
    return checkpoint.exists() and torch.load(checkpoint).get("ended", True)


def made(folder):
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--out", default=str(splits.HERE / "../models"))
    parser.add_argument("--judges", default=str(judge.FOLDER))
    args = parser.parse_args()
    runs, out = Path(args.runs), Path(args.out)
    torch.set_num_threads(2)
    torch.manual_seed(0)
    export_graphs(runs, out, Path(args.judges))
    cam_layer = fine_cam_tensor(onnx.load(str(out / "detector.onnx")))
    fitted = {"calibration": {"a": 1.0, "b": 0.0, "c": 0.0}, "operating_point": 0.5,
              "score_min": 0.02, "candidates_max": 60}
    if (runs / "calibration.json").exists():
        fitted.update(json.loads((runs / "calibration.json").read_text()))
    text = {"name": "pulmo-nodule", "version": VERSION,
            "detector": {"file": "detector.onnx", "sha256": judge.sha256(out / "detector.onnx"),
                         "cam_layer": cam_layer, "cam_side": maps.TILE, "tile": decode.TILE, "margin": decode.MARGIN,
                         "inner_max": decode.INNER_MAX, "recompute_side": maps.TILE, "score_min": fitted["score_min"],
                         "candidates_max": fitted["candidates_max"]},
            "candidate": {"file": "candidate.onnx", "sha256": judge.sha256(out / "candidate.onnx"),
                          "side": SIDE, "dropout": DROPOUT, "flips": FLIPS},
            "calibration": fitted["calibration"], "operating_point": fitted["operating_point"],
            "passes": 30}
    if "diameter" in fitted:
        text["diameter"] = fitted["diameter"]
    if (out / "model.json").exists():      # train_gate.py's entry
        before = json.loads((out / "model.json").read_text())
        text.update({k: before[k] for k in ("gate",) if k in before})
    (out / "model.json").write_text(json.dumps(text, indent=1) + "\n")


if __name__ == "__main__":
    main()
