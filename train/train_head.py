"""Trains what follows stage 2's trunk, the attention with its gate and the head, on features.py's crops.

    python3 train/train_head.py                          the one that ships: all hosts but those of never_train
    python3 train/train_head.py --without HOST           the one that judges HOST (leave one host out)

It starts from the shipped head. A gate starts at nothing and lets all keys through, which is dense attention; then it has
to choose ever fewer.
"""
import argparse
import time
from pathlib import Path

import numpy as np
import torch

import features
import from_onnx
import judge
import split as splits
from candidate import Candidate
from train_candidate import keys_at, loss_of, settle
from train_detector import Average, learning_rate, save

def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    parser.add_argument("--without", action="append", default=[], help="a host whose crops are not seen")
    parser.add_argument("--top-k", action="store_true", help="the attention of version 0.3.0, to compare")
    parser.add_argument("--rounds", type=float, default=3, help="how often each crop is seen")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--top-rate", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=1e-2)
    parser.add_argument("--dropout", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--name", help="of the checkpoint; head or head-HOST by default")
    return parser.parse_args()


def start(args):
    net = Candidate(gated=not args.top_k, dropout=args.dropout)
    from_onnx.load(net, Path(args.models) / "candidate.onnx")
    net.trunk.eval()
    for p in net.trunk.parameters():
        p.requires_grad = False
    return net


def order(rng, count):
    """Every crop once, in another order each time."""
    while True:
        yield from rng.permutation(count)


def hidden_of_nodules(net, seen, goals, batch=256):
    """What settle() fits to, and its goals."""
    nodules = np.flatnonzero(goals[:, 0] > 0)
    with torch.no_grad():
        hidden = [net.eval().look(torch.from_numpy(seen[nodules[i:i + batch]]).float())[0] for i in range(0, len(nodules), batch)]
    return torch.cat(hidden), torch.from_numpy(goals[nodules])


def main():
    args = arguments()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    net, rng = start(args), np.random.default_rng(args.seed)
    seen, goals, hosts = features.load(Path(args.cache) / "features", args.without)
    print(f"{len(goals)} crops of {sorted(set(hosts))}", flush=True)
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], args.top_rate, weight_decay=args.decay)
    average, steps, numbers = Average(net), int(len(goals) * args.rounds / args.batch), order(rng, len(goals))
    began, sums = time.time(), np.zeros(2)
    for step in range(1, steps + 1):
        chosen = np.fromiter((next(numbers) for _ in range(args.batch)), int, args.batch)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step / steps, args.top_rate)
        if not args.top_k:
            net.attention.keep = keys_at(step / steps)
        wanted = torch.from_numpy(goals[chosen])
        outputs = net.judge(torch.from_numpy(seen[chosen]).float())
        loss, found, _ = loss_of(outputs, wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        average.update(net, step)
        sums += found, ((outputs[0][:, 0] > 0).float() == wanted[:, 0]).float().mean().item()
        if step % 100 == 0:
            print(f"{(time.time() - began) / 60:5.1f} min step {step}/{steps} nodule {sums[0] / 100:.3f} right {sums[1] / 100:.3f}", flush=True)
            sums[:] = 0
    net.load_state_dict(average.state)
    settle(net, *hidden_of_nodules(net, seen, goals), args.seed)
    name = args.name or "-".join(["head", *args.without])
    save(Path(args.runs) / f"{name}.pt", average=net.state_dict(), step=step, crops=step * args.batch, used=time.time() - began,
         without=args.without, start=judge.sha256(Path(args.models) / "candidate.onnx"))


if __name__ == "__main__":
    main()
