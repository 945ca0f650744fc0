"""Writes the tables of docs/EVALUATION.md from the figures of evaluate.py, uncertainty_study.py, explanation_study.py
and `pulmo evaluate --json` (runs/pulmo.json).

    python3 train/report.py

The figures are copied to docs/evaluation/ first, so that the document can be written again from the repository alone
(--runs docs/evaluation).
"""
import argparse
import csv
import json
import re
import shutil
from pathlib import Path

import split as splits
from card import froc_table, host_table

NAMES = ("evaluation", "uncertainty", "explanation", "pulmo")
COPIED = (*NAMES, "calibration", "precision")


def table(head, rows):
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines)


def share(part, whole):
    return f"{part}/{whole} ({100 * part / whole:.0f} %)" if whole else "0/0"


def share_text(text):
    return share(*map(int, text.split("/")))


def between(pair, digits=3):
    return "–" if pair is None or pair[0] is None else f"{pair[0]:.{digits}f} to {pair[1]:.{digits}f}"


class Report:
    def __init__(self, runs, data, models):
        self.e, self.u, self.x, self.p = (json.loads((runs / f"{n}.json").read_text()) for n in NAMES)
        self.c, self.q = (json.loads((runs / f"{n}.json").read_text()) for n in ("calibration", "precision"))
        self.model = json.loads((models / "model.json").read_text())
        with open(data / "hosts" / "hosts.csv") as f:
            self.hosts = {r["name"]: r for r in csv.DictReader(f)}

    # ---- one function a table ----------------------------------------------------------------------------

    def measured(self):
        f = self.e["froc"]
        rows = [["model", f"{self.model['name']} {self.model['version']}"],
                ["detector.onnx", f"`{self.model['detector']['sha256'][:16]}…`"],
                ["candidate.onnx", f"`{self.model['candidate']['sha256'][:16]}…`"],
                ["copies", f"{f['scans']} of {len(self.e['by_host'])} hosts; head, calibration and thresholds "
                           "of each host from the others"],
                ["nodules", f"{f['nodules']} of patients never trained on"],
                ["marks a scan", self.e["marks_a_scan"]],
                ["operating point", f"p ≥ {self.model['operating_point']} ships; each host's own: {self.points()}"],
                ["reported there", f"{share(self.e['at_operating_point']['found'], f['nodules'])} of the nodules, "
                                   f"{self.e['at_operating_point']['false_positives_a_scan']} false positives a scan, "
                                   f"{self.e['at_operating_point']['shams_marked']} shams"]]
        return table(["what", "value"], rows)

    def points(self):
        values = [v["operating_point"] for v in self.c["left_out"].values()]
        return f"{min(values)} to {max(values)}"

    def fits(self):
        rows = [[name, *[f"{v['calibration'][k]:.2f}" for k in "abc"], f"{v['operating_point']:.3f}", f"{v['score_min']:.3f}"]
                for name, v in [("ships", self.c), *self.c["left_out"].items()]]
        return table(["host left out", "a", "b", "c", "operating point", "score_min of stage 1"], rows)

    def targets(self):
        kinds, f = self.e["found_by_kind"], self.e["froc"]
        solid = list(map(int, kinds["1"].get("solid, 6 mm and more", "0/0").split("/")))
        subsolid = list(map(int, kinds["1"].get("subsolid, 6 mm and more", "0/0").split("/")))
        at8 = list(map(int, re.fullmatch(r"(\d+)/(\d+)", self.at8()).groups()))
        calibrated = self.u["calibration"]["mean of the passes"]
        baseline, best = self.best_uncertainty()
        pointing = self.x["pointing_offset"]["HiResCAM"]
        d = self.p["diameter"]

        def row(name, wanted, got, met):
            return [name, wanted, got, "yes" if met else "**no**"]
        rows = [
            row("CPM", "≥ 0.90", f"{f['cpm']:.3f} ({between(f['cpm_interval'])})", f["cpm"] >= 0.9),
            row("solid, 6 mm and more, 1 FP/scan", "≥ 95 %", share(*solid), solid[0] >= 0.95 * solid[1]),
            row("subsolid, 6 mm and more, 1 FP/scan", "≥ 85 %", share(*subsolid),
                subsolid[0] >= 0.85 * subsolid[1]),
            row("all, 8 FP/scan", "≥ 98.7 %", share(*at8), at8[0] >= 0.987 * at8[1]),
            row("diameter, median absolute error", "≤ 0.7 mm", f"{d['median_absolute_mm']:.2f} mm, {d['compared']} nodules",
                d["median_absolute_mm"] <= 0.7),
            row("diameter, 95th percentile", "≤ 2 mm", f"{d['p95_absolute_mm']:.2f} mm", d["p95_absolute_mm"] <= 2),
            row("ECE", "≤ 0.03", f"{calibrated['ece']:.3f}, {self.u['candidates']} candidates", calibrated["ece"] <= 0.03),
            row("AUROC of the uncertainty", "≥ 0.80", f"{best['auroc']:.3f}", best["auroc"] >= 0.8),
            row("its gain over 1 − max p", "> 0", f"{best['gain']:+.3f} ({between(best['gain_interval'])})",
                (best["gain_interval"][0] or 0) > 0),
            row("int8, CPM lost", "≤ 0.7 %", f"{100 * self.q['int8']['lost']:.2f} % ({between([100 * v for v in self.q['int8']['lost_interval']], 2)}), "
                f"{self.q['int8']['nodules']} nodules", self.q["int8"]["lost"] <= 0.007),
            row("pointing game of the shown map, offset", "≥ 95 %", share(pointing["hits"], pointing["cases"]),
                pointing["hits"] >= 0.95 * pointing["cases"])]
        return table(["target", "wanted", "measured", "reached"], rows) + "\n\n" + self.why(f, calibrated, best, pointing, baseline)

    def at8(self):
        f = self.e["froc"]
        return f"{round(f['sensitivity']['8'] * f['nodules'])}/{f['nodules']}"

    def best_uncertainty(self):
        """The product's own measures; the best of them, or the plain baseline."""
        baseline = next(iter(self.u["auroc"]))
        own = ("mutual information", "predictive entropy", "interval width", "variance")
        return baseline, max((self.u["auroc"][n] for n in own), key=lambda r: r["auroc"])

    def best_place(self):
        return max(r["variance"] for r in self.u["places"])

    def why(self, f, calibrated, best, pointing, baseline):
        lines = []
        if f["cpm"] < 0.9:
            found, of = map(int, self.e["found_by_shows"]["1"]["less than 0.5"].split("/"))
            missed = f["nodules"] - round(f["sensitivity"]["1"] * f["nodules"])
            lines.append("**Detection** falls short by what the tables below name: small, subsolid and vessel- or "
                         f"pleura-bound nodules. Of the {missed} that are missed at 1 FP/scan, {of - found} show less than half of their density "
                         f"(of all, {of}); without such implants CPM is {self.e['shown']['cpm']:.3f} ({between(self.e['shown']['cpm_interval'])}). Hours and hosts "
                         "limit the rest (docs/TRAINING.md).")
        if calibrated["ece"] > 0.03:
            chance = calibrated["ece_if_every_probability_were_true"]
            lines.append(f"**ECE**: with {self.u['candidates']} candidates in 15 bins, probabilities that were all true "
                         f"would show {chance[0]:.3f} by chance alone (95 % below {chance[1]:.3f}); 0.03 cannot be seen "
                         "with so few. " + ("What lies above that is real: five hosts are few to calibrate on."
                                            if calibrated["ece"] > chance[1] else
                                            "The measured error is within what chance does."))
        if (best["gain_interval"][0] or 0) <= 0:
            c = self.model["calibration"]
            lines.append(f"**Uncertainty** does not beat 1 − max probability. The passes change stage 2 only, while p "
                         f"is made of {c['a']}·logit₁ + {c['b']}·logit₂ + c: where stage 1 is wrong, no pass can "
                         f"disagree. Of the other places and rates the best variance reaches {self.best_place():.3f}, against "
                         f"{self.u['auroc'][baseline]['auroc']:.3f} of 1 − max probability (chosen after the fact; "
                         "tables below).")
        if pointing["hits"] < 0.95 * pointing["cases"]:
            lines.append(f"**Pointing**: the hottest voxel lies within 4 mm of the mask in "
                         f"{share(pointing['within_4_mm'], pointing['cases'])}.")
        return "\n\n".join(lines)

    def froc(self):
        return froc_table(self.e, hosts=False)

    def host_rows(self):
        rows = []
        for name, r in self.e["by_host"].items():
            h = self.hosts[name]
            at = [r["sensitivity"][str(rate)] for rate in (1, 4, 8)]
            rows.append([name, f"{h['manufacturer']} {h['model']}".strip(), f"{float(h['spacing_z_mm']):g}",
                         f"{float(h['spacing_x_mm']):.2f}", h["kernel"] or "unknown", f"{r['cpm']:.3f}",
                         *[share(round(s * r["nodules"]), r["nodules"]) for s in at],
                         f"{r['false_positives'] / r['scans']:.1f}"])
        return table(["host", "scanner", "slice spacing mm", "pixel mm", "kernel", "CPM", "1 FP/scan", "4", "8",
                      "marks that are false, a scan"], rows)

    def found(self, what, head):
        k = self.e[what]
        return table([head, "1 FP/scan", "4", "8"],
                     [[name, *[share_text(k[rate][name]) for rate in ("1", "4", "8")]] for name in k["4"]])

    def kinds(self):
        return self.found("found_by_kind", "kind")

    def shows(self):
        return self.found("found_by_shows", "share of its density that shows")

    def lesions(self):
        return host_table(self.e)

    def diameter(self):
        d, e = self.p["diameter"], self.e["errors"]
        return table(["figure", "value"], [
            ["nodules compared", d["compared"]], ["bias", f"{d['bias_mm']:+.2f} mm"],
            ["limits of agreement", f"{d['limit_low_mm']:+.2f} to {d['limit_high_mm']:+.2f} mm"],
            ["absolute error, median", f"{d['median_absolute_mm']:.2f} mm"],
            ["absolute error, 95th percentile", f"{d['p95_absolute_mm']:.2f} mm"],
            ["centre, median error", f"{e['centre_median_mm']} mm"]])

    def texture(self):
        confusion = self.e["texture_confusion"]
        return table(["", *confusion], [[a, *[share(n, sum(row.values())) for n in row.values()]]
                                        for a, row in confusion.items()])

    def calibration(self):
        c = self.u["calibration"]
        rows = []
        for name, r in c.items():
            chance = r.get("ece_if_every_probability_were_true")
            rows.append([name, f"{r['ece']:.3f}", between(r.get("interval")), f"{r['brier']:.3f}" if "brier" in r else "",
                         f"{chance[0]:.3f}, 95 % below {chance[1]:.3f}" if chance else ""])
        bins = [[f"{b[0]:.2f}–{b[0] + 1 / 15:.2f}", b[1], b[2], "" if b[3] is None else f"{b[3]:.3f}",
                 f"{b[2] / b[1]:.3f}" if b[1] else ""] for b in c["mean of the passes"]["bins"]]
        return (table(["probability", "ECE", "95 %", "Brier", "ECE if every p were true"], rows) +
                f"\n\n{self.u['candidates']} candidates, {self.u['nodules']} nodules. Bins of the mean of the passes:\n\n" +
                table(["bin", "candidates", "nodules", "mean p", "share of nodules"], bins))

    def uncertainty(self):
        rows = []
        for name, r in self.u["auroc"].items():
            half = self.u["rejection"][name][10]
            rows.append([name, f"{r['auroc']:.3f}", between(r["interval"]), f"{r['gain']:+.3f}",
                         between(r["gain_interval"]), share(half[2], half[1])])
        return (f"{share(self.u['wrong'], self.u['candidates'])} of the decisions are wrong.\n\n" +
                table(["uncertainty", "AUROC", "95 %", "gain", "95 %", "right when half are rejected"], rows))

    def places(self):
        rates = sorted({r["rate"] for r in self.u["places"]})
        rows = {}
        for r in self.u["places"]:
            rows.setdefault(" + ".join(r["places"]), {})[r["rate"]] = r
        return table(["dropout in", *[f"rate {r}" for r in rates]],
                     [[name, *[f"{row[r]['mutual information']:.3f} / {row[r]['variance']:.3f}" for r in rates]]
                      for name, row in rows.items()])

    def passes(self):
        return table(["passes", "mutual information", "its sd", "variance"],
                     [[r["passes"], f"{r['mutual information']:.3f}", f"{r['sd over 5 seeds']:.3f}",
                       f"{r['variance']:.3f}"] for r in self.u["passes"]])

    def triage(self):
        t = self.u["triage"]
        rows = [[label, share(t[key]["wrong"], t[key]["findings"])]
                for label, key in (("reported, sent to review: false", "reviewed"),
                                   ("reported, the others: false", "others"),
                                   ("not reported, interval crosses the point: nodules", "not_reported_straddling"),
                                   ("not reported, the others: nodules", "not_reported_others"))]
        return (f"As it ships: operating point {t['operating_point']}, mutual information > {t['mutual_information_nats']} nats, "
                f"{t['passes']} passes, dropout {t['dropout']}. Each host was judged by the thresholds of the others.\n\n" +
                table(["findings", "wrong"], rows))

    def pointing(self):
        rows = []
        for name, r in self.x["pointing_offset"].items():
            shown = self.x["pointing_as_shown"][name]
            rows.append([name, share(r["hits"], r["cases"]), between(r["interval"]), share(r["within_4_mm"], r["cases"]),
                         share(r["hits_from_6_mm"], r["cases_from_6_mm"]), share(shown["hits"], shown["cases"])])
        return table(["map", "offset: in the mask", "95 %", "offset: within 4 mm of it", "offset: nodules from 6 mm",
                      "candidate as detected: in the mask"], rows)

    def faithfulness(self):
        f = self.x["faithfulness"]
        first = table(["map", "deletion", "insertion"],
                      [[n, f"{r['deletion']:.3f}", f"{r['insertion']:.3f}"] for n, r in f["maps"].items()])
        second = table(["difference", "deletion (below 0 is better)", "insertion (above 0 is better)"],
                       [[n, *[f"{r[w]['mean']:+.3f} ({between(r[w]['interval'])})" for w in ("deletion", "insertion")]]
                        for n, r in f["against"].items()])
        return f"{f['cases']} nodules.\n\n{first}\n\n{second}"

    def randomised(self):
        text = ""
        if any(r["mean_rank_correlation"] > 0.5 for r in self.x["randomised"].values()):
            text = ("\n\nWhere the correlation stays above one half the check is **not passed**: the gradient of one cell "
                    "reaches only its neighbourhood whatever the weights are, so part of that map's shape is the "
                    "network's build, not what it learnt.")
        return table(["map", "cases", "mean rank correlation", "95 %"],
                     [[n, r["cases"], f"{r['mean_rank_correlation']:+.3f}", between(r["interval"])]
                      for n, r in self.x["randomised"].items()]) + text


TABLES = {"measured": Report.measured, "targets": Report.targets, "froc": Report.froc, "hosts": Report.host_rows,
          "kinds": Report.kinds, "shows": Report.shows, "fits": Report.fits, "lesions": Report.lesions, "diameter": Report.diameter, "texture": Report.texture,
          "calibration": Report.calibration, "uncertainty": Report.uncertainty, "places": Report.places,
          "passes": Report.passes, "triage": Report.triage, "pointing": Report.pointing,
          "faithfulness": Report.faithfulness, "randomised": Report.randomised}


def fill(text, report):
    """The text with every table between `<!-- table NAME -->` and `<!-- end -->` written anew."""
    for name, make in TABLES.items():
        pattern = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.S)
        if len(pattern.findall(text)) != 1:
            raise SystemExit(f"docs/EVALUATION.md does not hold the table \"{name}\" once")
        text = pattern.sub(lambda m: m.group(1) + make(report) + "\n" + m.group(2), text)
    return text


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", default=str(splits.HERE / "runs"))
    parser.add_argument("--data", default=str(splits.HERE / "../../shared/data"))
    parser.add_argument("--models", default=str(splits.HERE / "../models"))
    parser.add_argument("--docs", default=str(splits.HERE / "../docs"))
    args = parser.parse_args()
    runs, docs = Path(args.runs), Path(args.docs)
    figures = docs / "evaluation"
    figures.mkdir(exist_ok=True)
    for name in COPIED:
        if (runs / f"{name}.json").resolve() != (figures / f"{name}.json").resolve():
            shutil.copy(runs / f"{name}.json", figures / f"{name}.json")
    page = docs / "EVALUATION.md"
    page.write_text(fill(page.read_text(), Report(figures, Path(args.data), Path(args.models))))


if __name__ == "__main__":
    main()
