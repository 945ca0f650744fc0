"""Who may be seen by what: hosts and nodules of each part of the split (split.json).

Everything that reads data for training asks here, and nothing else opens the CSV files. A series
named in never_train is refused even when someone edits the parts above it.
"""
import csv
import hashlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
PARTS = ("train", "validation", "test")
MORE = "more"     # hosts of the other parts with training patients' nodules, for cross-validation
FOLDS = ("a", "b")     # of it: the networks of one have seen no host of it
ANEW = ("c", "d")      # the same of the training hosts, by networks made from nothing
JUDGED = "judged"      # the training hosts with the other patients' nodules, which those networks are judged by
MADE = (*PARTS, MORE, JUDGED)      # of copies; a copy's seed knows its part by its place here


def load():
    return json.loads((HERE / "split.json").read_text())


def patient_part(patient_id, split):
    """The part a patient's nodules belong to: a salted hash, so that it never moves."""
    rule = split["patients"]
    if patient_id in rule["fixed"]:
        return rule["fixed"][patient_id]
    digest = hashlib.sha256((rule["salt"] + patient_id).encode()).hexdigest()
    value = int(digest[:8], 16) / 2**32
    if value < rule["test_below"]:
        return "test"
    return "validation" if value < rule["validation_below"] else "train"


def refuse(rows, part, split):
    """Raises when training data holds a series that it must never hold."""
    bad = [r["seriesuid"] for r in rows if r["seriesuid"] in split["never_train"]]
    if part != "test" and bad:
        raise SystemExit(f"split.json puts series {bad[0]} into '{part}': it must never be trained on")
    return rows


def more_hosts(split):
    """Hosts that stage 1 never saw and that stage 2 may see in a fold: without those of never_train."""
    return sorted({h for name in FOLDS for h in split["folds"][name]})


UNSEEN = ("validation", "test")     # parts whose hosts no network was trained on


def hosts(data, part, split=None):
    """Rows of hosts.csv of one part, in the order of split.json; MORE leaves out what must never be trained on, JUDGED has
    the hosts of train."""
    split = split or load()
    with open(Path(data) / "hosts" / "hosts.csv") as f:
        rows = {r["name"]: r for r in csv.DictReader(f)}
    if part == MORE:
        return [rows[h] for h in more_hosts(split) if rows[h]["seriesuid"] not in split["never_train"]]
    return refuse([rows[name] for name in split["hosts"]["train" if part == JUDGED else part]], part, split)


def never_fitted(split):
    """Names of the hosts that hold a series of never_train: no weight and no threshold that ships sees them."""
    return split["never_fitted_hosts"]


def nodules(data, part, split=None):
    """Rows of nodules.csv whose patient belongs to one part; MORE has those of train, JUDGED all others."""
    split = split or load()
    parts = UNSEEN if part == JUDGED else ("train",) if part == MORE else (part,)
    with open(Path(data) / "nodules" / "nodules.csv") as f:
        rows = [r for r in csv.DictReader(f) if patient_part(r["patient_id"], split) in parts]
    return rows if part == JUDGED else refuse(rows, parts[0], split)


def lesions(data, host_name):
    """Known lesions of a host: [(z, y, x) LPS mm, diameter or -1, included]."""
    with open(Path(data) / "hosts" / "lesions.csv") as f:
        return [((float(r["z_lps_mm"]), float(r["y_lps_mm"]), float(r["x_lps_mm"])),
                 float(r["diameter_mm"]), r["included"] == "1")
                for r in csv.DictReader(f) if r["name"] == host_name]


def main():
    """Names of a part's hosts, for the Makefile: python3 train/split.py more"""
    split, part = load(), sys.argv[1]
    never = never_fitted(split)
    print("\n".join(h for h in (more_hosts(split) if part == MORE else split["hosts"][part]) if h not in never))


if __name__ == "__main__":
    main()
