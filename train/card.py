"""Writes models/MODEL_CARD.md: the text of card.md with the measured figures put in.

    python3 train/card.py        after evaluate.py and provenance.py; no figure of the card is typed by hand
"""
import json
from pathlib import Path

import froc
import split as splits

HERE = splits.HERE


def percent(pair):
    return f"{100 * pair[0]:.0f}–{100 * pair[1]:.0f}"


def froc_row(name, result):
    cells = " | ".join(f"{result['sensitivity'][str(r)]:.3f}" for r in froc.RATES)
    low, high = result["cpm_interval"]
    return f"| {name} | {cells} | {result['cpm']:.3f} ({low:.3f}–{high:.3f}) |"


def froc_table(e, hosts=True):
    head = "| | " + " | ".join(f"{r:g}" for r in froc.RATES) + " | CPM (95 %) |\n|" + "---|" * 9
    rows = [froc_row("both stages", e["froc"]),
            froc_row("both, implants that hardly show excluded", e["shown"]),
            froc_row("both, strict", e["strict"]), froc_row("stage 1 alone", e["stage_1_alone"]),
            froc_row("stage 2 alone", e["stage_2_alone"])]
    rows += [froc_row(f"{name} ({r['nodules']} nodules, {r['scans']} copies)", r)
             for name, r in e["by_host"].items() if hosts]
    return "\n".join([head] + rows)


def kind_table(e):
    return "\n".join(["| kind | found at 4 FP/scan |", "|---|---|"] +
                     [f"| {k} | {v} |" for k, v in e["found_at_4_by_kind"].items()])


def host_table(e):
    rows = ["| host, no implants | known lesion | rank | score | measured | other marks at the "
            "operating point |", "|---|---|---|---|---|---|"]
    for h in e["hosts_without_implants"]:
        for lesion in h["lesions"] or [None]:
            cells = [f"{lesion['mm']:.1f} mm", str(lesion["rank"]), str(lesion["score"]),
                     f"{lesion['measured_mm']} mm"] if lesion else ["none known", "", "", ""]
            rows.append("| " + " | ".join([h["host"]] + cells +
                                          [str(h["others_above_operating_point"])]) + " |")
    return "\n".join(rows)


def trained(stage):
    return f"{stage['crops']:,} crops in {60 * stage['hours']:.0f} minutes"


def main():
    e = json.loads((HERE / "runs/evaluation.json").read_text())
    model = json.loads((HERE / "../models/model.json").read_text())
    record = json.loads((HERE / "../models/provenance.json").read_text())
    at4 = e["froc"]["sensitivity"]["4"]
    point = e["at_operating_point"]
    values = {
        "VERSION": model["version"], "COPIES": e["froc"]["scans"], "NODULES": e["froc"]["nodules"],
        "AT4": f"{100 * at4:.1f} % ({round(at4 * e['froc']['nodules'])} of "
               f"{e['froc']['nodules']}; 95 % interval {percent(e['froc']['interval']['4'])} %)",
        "STRICT4": f"{100 * e['strict']['sensitivity']['4']:.1f} %",
        "FROC": froc_table(e), "KINDS": kind_table(e), "HOSTS": host_table(e),
        "CENTRE": e["errors"]["centre_median_mm"], "SIZE": e["errors"]["diameter_mean_absolute_mm"],
        "TEXTURE": e["texture_right"], "MARKS": e["marks_a_scan"],
        "POINT": model["operating_point"], "FOUND": point["found"],
        "FALSE": point["false_positives_a_scan"], "SHAMS": point["shams_marked"],
        "CALIBRATION": ", ".join(f"{k} = {model['calibration'][k]}" for k in "abc"),
        "SCORE_MIN": model["detector"]["score_min"],
        "STAGE1": trained(record["detector"]), "STAGE2": trained(record["candidate"]), "HEAD": trained(record["head"]),
        "HEADS": len({Path(name).parent for name in e["judges"]}),
        "FLIPS": model["candidate"]["flips"],
    }
    text = (HERE / "card.md").read_text()
    for key, value in values.items():
        text = text.replace("{{" + key + "}}", str(value))
    assert "{{" not in text, "a figure of the card is missing"
    Path(HERE / "../models/MODEL_CARD.md").write_text(text)


if __name__ == "__main__":
    main()
