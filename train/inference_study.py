"""What the same weights gain by looking more often: mirrored and shifted crops, a mirrored volume, other sums of scores.

    python3 train/inference_study.py         prints the tables of docs/TRAINING.md, "Looking more often"

Everything is chosen here, so only the validation copies are read. Stage 1 runs over whole volumes instead of tiles, in
all rows alike. What the networks gave is kept in cache/inference; without it a run takes an hour of a quiet processor.
"""
import argparse
from pathlib import Path

import numpy as np
import torch

import calibrate
import crops
import decode
import froc
import lungs
import split as splits
import trust
import uncertainty_study as study
from scan import Pipeline

RIM = 20                  # of black around a volume; whole cells, and in step with the tiles
PASSES, RATE = 30, 0.2
SHIFTS = [tuple(2 * sign if axis == a else 0 for a in range(3)) for axis in range(3) for sign in (-1, 1)]
IMAGES = (1, 2, 4, 8)
ROUNDS = 1000


# ---- what the networks say -------------------------------------------------------------------------------

def maps_of(pipeline, image, flip):
    """Stage 1 over the whole volume, mirrored and turned back (decode.heatmaps gives the same but for its tiles)."""
    padded = np.pad(image, [(RIM, RIM + -(n + 2 * RIM) % 8) for n in image.shape])
    axes = [axis + 2 for axis in decode.FLIPS[flip]]
    volume = torch.from_numpy(padded[None, None])
    with torch.no_grad():
        maps = [torch.flip(m, axes) for m in pipeline.shipped.detect(torch.flip(volume, axes))]
    for axis in decode.FLIPS[flip]:
        maps[1][:, axis] *= -1
    edge = RIM // decode.STRIDE
    cells = tuple(slice(edge, edge - (-n // decode.STRIDE)) for n in image.shape)
    return torch.cat(maps, 1)[0].numpy()[(slice(None),) + cells]


def seen(passes, crops40, seed):
    """(logit, ln diameter) without dropout and PASSES logits of one image of every crop."""
    with torch.no_grad():
        carried = passes.trunk(crops40)
        plain = passes.tail(carried)
    logits = passes.logits([carried], (RATE,) * 3, RATE, PASSES, seed)
    return plain["logit"][:, 0].numpy(), plain["log_diameter"][:, 0].numpy(), logits.numpy()


def look(pipeline, passes, image, rows):
    """Stage 2 on every row: all mirror images with passes, six shifts without."""
    crops40, out = torch.from_numpy(decode.crops40(image, rows)), {"rows": rows}
    for n in range(len(decode.FLIPS)):
        out[f"l{n}"], out[f"d{n}"], out[f"pl{n}"] = seen(passes, decode.mirrored(crops40, n), 1 + n)
    for n, shift in enumerate(SHIFTS):
        moved = rows.copy()
        moved[:, :3] += shift
        with torch.no_grad():
            out[f"sl{n}"] = passes.tail(passes.trunk(torch.from_numpy(decode.crops40(image, moved))))["logit"][:, 0].numpy()
    return out


def collect(pipeline, copies, kept):
    """Two lists, by copy: the rows of stage 1 as it is, and of its mean with the volume mirrored along x."""
    passes, out = pipeline.shipped.stage, ([], [])
    kept.mkdir(parents=True, exist_ok=True)
    for volume, name in zip(copies.volumes, copies.by_name):
        files = [kept / f"{name}-{which}.npz" for which in ("0", "01")]
        if not all(f.exists() for f in files):
            image = np.array(volume).astype(np.float32) / 255
            mask = lungs.lung_mask_2mm(lungs.fill_masked_outside(image * 1632 - 1024, 2), (1, 1, 1))
            distance = lungs.distance_mm(mask, image.shape)
            maps = [maps_of(pipeline, image, n) for n in (0, 1)]
            for f, m in zip(files, (maps[0], (maps[0] + maps[1]) / 2)):
                rows = decode.suppress(decode.peaks(m, distance, pipeline.text["detector"]["score_min"]), 60)
                np.savez(f, **look(pipeline, passes, image, rows))
            print(name, flush=True)
        for marks, f in zip(out, files):
            marks.append(dict(np.load(f)))
    return out


# ---- how good a score is ---------------------------------------------------------------------------------

class Marks:
    """The marks of every copy with their truth, and ways to make one score of what was seen."""

    def __init__(self, copies, given, score_min):
        self.hosts = [t["host"] for t in copies.texts]
        self.truth = [study.as_scan(t, []) for t in copies.texts]
        least = np.log(score_min / (1 - score_min))
        self.given = [{k: v[g["rows"][:, 4] >= least] for k, v in g.items()} for g in given]
        self.labels = [[calibrate.label({"at": r[:3]}, s) for r in g["rows"]]
                       for g, s in zip(self.given, self.truth)]
        rng = np.random.default_rng(0)
        self.draws = [rng.integers(0, len(given), len(given)) for _ in range(ROUNDS)]
        self.share = np.log(sum(len(s["nodules"]) for s in self.truth) / (calibrate.PREVALENCE * len(given)))

    def mean(self, key, count):
        return [np.mean([g[f"{key}{n}"] for n in range(count)], 0) for g in self.given]

    def logit1(self):
        return [g["rows"][:, 4] for g in self.given]

    def fit(self, features, among):
        """Coefficients as calibrate.py fits them on the copies `among`."""
        x = np.concatenate([np.column_stack([f[i] for f in features]) for i in among])
        y = np.array([-1 if v is None else v for i in among for v in self.labels[i]])
        nodules = sum(len(self.truth[i]["nodules"]) for i in among)
        weight = np.where(y == 1, calibrate.PREVALENCE * len(among) / nodules, 1.0)
        return calibrate.fit_logistic(x[y >= 0], y[y >= 0], weight[y >= 0])

    def fits(self, features, across):
        """The coefficients for every copy: of all copies, or of the other host's."""
        everyone = range(len(self.given))
        if not across:
            return [self.fit(features, everyone)] * len(self.given)
        other = {h: self.fit(features, [i for i in everyone if self.hosts[i] != h]) for h in set(self.hosts)}
        return [other[h] for h in self.hosts]

    def score(self, features, across):
        return [np.column_stack([f[i] for f in features]) @ b[:-1] + b[-1]
                for i, b in enumerate(self.fits(features, across))]

    def scans(self, score):
        return [{**s, "marks": np.column_stack([g["rows"][:, :3], v]).tolist()}
                for s, g, v in zip(self.truth, self.given, score)]

    def judge(self, score):
        """CPM, CPM of every draw, and by copy: squared error, decisions that are wrong, judged marks."""
        judged = [froc.judge(s) for s in self.scans(score)]
        drawn = np.array([np.mean(froc.sensitivities([judged[i] for i in d])) for d in self.draws])
        errors = []
        for scan, v in zip(self.scans(score), score):
            y, p = study.verdicts(scan), trust.sigmoid(np.asarray(v) + self.share)
            k = y >= 0
            errors.append([((p - y)[k]**2).sum(), ((p >= 0.5) != (y == 1))[k].sum(), k.sum()])
        return float(np.mean(froc.sensitivities(judged))), drawn, np.array(errors)

    def diameters(self, count):
        """Median and 95th percentile of the absolute error of the best mark on every nodule."""
        out = []
        for g, s, ln in zip(self.given, self.truth, self.mean("d", count)):
            for nodule in s["nodules"]:
                hits = [i for i, r in enumerate(g["rows"]) if froc.within(r[:3], nodule)]
                if hits:
                    out.append(abs(np.exp(ln[max(hits, key=lambda i: g["rows"][i, 4])]) - nodule[3]))
        return f"{np.median(out):.2f}, {np.percentile(out, 95):.2f}"


def between(values):
    return "{:+.3f} to {:+.3f}".format(*np.percentile(values, [2.5, 97.5]))


def row(name, marks, features, against, diameters=""):
    """One line of the first table; `against` is what row() gave for the reference."""
    got = [marks.judge(marks.score(features, across)) for across in (False, True)]
    cells = []
    for (cpm, drawn, _), (_, base, _) in zip(got, [g[:3] for g in against or got]):
        cells += [f"{cpm:.3f}", between(drawn - base) if against else ""]
    errors, base = got[0][2], (against or got)[0][2]
    brier = [errors[d, 0].sum() / errors[d, 2].sum() - base[d, 0].sum() / base[d, 2].sum() for d in marks.draws]
    total = errors.sum(0)
    print("| " + " | ".join([name, *cells, f"{total[0] / total[2]:.4f}", between(brier) if against else "",
                             f"{total[1]:.0f}/{total[2]:.0f}", diameters]) + " |")
    return got


def scores_table(marks, mirrored):
    print("| score | CPM | gain, 95 % | CPM, fitted on the other host | gain, 95 % | Brier | gain, 95 % | wrong | diameter error |")
    print("|" + "---|" * 9)
    one = [marks.logit1(), marks.mean("l", 1)]
    base = row("one crop (as before)", marks, one, None, marks.diameters(1))
    for n in IMAGES[1:]:
        row(f"{n} mirror images", marks, [marks.logit1(), marks.mean("l", n)], base, marks.diameters(n))
    shifted = [(a + 6 * b) / 7 for a, b in zip(marks.mean("l", 1), marks.mean("sl", 6))]
    row("7 shifts", marks, [marks.logit1(), shifted], base)
    row("stage 1 alone", marks, [marks.logit1()], base)
    for n in (1, 8):
        row(f"stage 2 alone, {n}", marks, [marks.mean("l", n)], base)
    ln = [[np.log(g["rows"][:, 3]) for g in marks.given], marks.mean("d", 8)]
    row("8, both ln(diameter) too", marks, [marks.logit1(), marks.mean("l", 8), *ln], base)
    sd = [np.std([g[f"l{n}"] for n in range(8)], 0) for g in marks.given]
    row("8, their deviation too", marks, [marks.logit1(), marks.mean("l", 8), sd], base)
    for n in (1, 8):
        product = [np.log(trust.sigmoid(a) * trust.sigmoid(b)) for a, b in zip(marks.logit1(), marks.mean("l", n))]
        row(f"product of both p, {n}", marks, [product], base)
        row(f"mean of both logits, {n}", marks, [[a + b for a, b in zip(marks.logit1(), marks.mean("l", n))]], base)
    for n in (1, 8):
        row(f"volume mirrored too, {n}", mirrored, [mirrored.logit1(), mirrored.mean("l", n)], base, mirrored.diameters(n))


def trust_table(marks):
    """The passes shared over the images: is the uncertainty one of what is wrong?"""
    print("\n| images | ECE | Brier | wrong | 1 - max p | variance | interval width | mutual information |\n|" + "---|" * 8)
    for n in IMAGES:
        fits = marks.fits([marks.logit1(), marks.mean("l", n)], False)
        logits = [np.stack([g[f"pl{i % n}"][:, i] for i in range(PASSES)], 1).astype(float) for g in marks.given]
        p = [trust.sigmoid(b[0] * l1[:, None] + b[1] * l + b[2] + marks.share)
             for b, l1, l in zip(fits, marks.logit1(), logits)]
        label = np.concatenate([study.verdicts(s) for s in marks.scans([v.mean(1) for v in p])])
        calibrated, mean = np.concatenate(p), np.concatenate(p).mean(1)
        false = np.sort(mean[label == 0])[::-1]
        keep = (label >= 0) & (mean > false[study.FALSE_A_SCAN * len(p)])
        y, wrong = label[keep], (mean[keep] >= 0.5) != (label[keep] == 1)
        spread = study.spread(np.concatenate(logits), calibrated)
        values = [np.minimum(mean, 1 - mean)] + [spread[k] for k in ("variance", "interval width", "mutual information")]
        print("| " + " | ".join([str(n), f"{trust.ece(mean[keep], y.astype(float)):.3f}",
                                 f"{((mean[keep] - y)**2).mean():.4f}", f"{wrong.sum()}/{keep.sum()}",
                                 *[f"{trust.auroc(v[keep], wrong):.3f}" for v in values]]) + " |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", default=str(splits.HERE / "cache"))
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    args = parser.parse_args()
    pipeline = Pipeline(args.models)
    copies = crops.Copies(Path(args.cache) / "validation-plain")
    plain, mirrored = collect(pipeline, copies, Path(args.cache) / "inference")
    score_min = pipeline.text["detector"]["score_min"]
    marks = Marks(copies, plain, score_min)
    print(f"{len(plain)} copies, {sum(len(s['nodules']) for s in marks.truth)} nodules, "
          f"{sum(len(g['rows']) for g in marks.given)} marks\n")
    scores_table(marks, Marks(copies, mirrored, score_min))
    trust_table(marks)


if __name__ == "__main__":
    main()
