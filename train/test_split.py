"""Checks that no patient and no host is on both sides of the split. Runs in a second.

    python3 train/test_split.py [--data ../shared/data]
"""
import argparse
import copy
import sys
from pathlib import Path

import split as splits


def check(condition, text):
    if not condition:
        sys.exit(f"FAIL {text}")
    print(f"ok   {text}")


def refuses(data, part, split, read):
    try:
        read(data, part, split)
    except SystemExit:
        return True
    return False


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=str(splits.HERE / "../../shared/data"))
    data = parser.parse_args().data
    split = splits.load()
    names = [n for part in splits.PARTS for n in split["hosts"][part]]
    check(len(names) == len(set(names)), "no host is in two parts")
    if not Path(data).is_dir():
        print("SKIP the data folder is absent")
        return
    patients = {p: {r["patient"] for r in splits.hosts(data, p)} |
                   {r["patient_id"] for r in splits.nodules(data, p)} for p in splits.PARTS}
    for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
        check(not patients[a] & patients[b], f"no patient is in both {a} and {b}")
    series = {p: {r["seriesuid"] for r in splits.hosts(data, p)} |
                 {r["seriesuid"] for r in splits.nodules(data, p)} for p in splits.PARTS}
    for uid in split["never_train"]:
        check(uid in series["test"], f"{uid[-12:]} is in the test part")
        check(uid not in series["train"] | series["validation"], f"{uid[-12:]} is in no other part")
    names = {r["name"]: r["seriesuid"] for r in splits.hosts(data, "test")}
    check({names.get(n) for n in splits.never_fitted(split)} == set(split["never_train"]) & set(names.values()),
          "the hosts that no threshold sees are those of never_train")
    more = {r["name"] for r in splits.hosts(data, splits.MORE)}
    check(more == set(splits.more_hosts(split)) - set(splits.never_fitted(split)), "cross-validation never trains on them")
    check({r["patient_id"] for r in splits.nodules(data, splits.JUDGED)} ==
          set.union(*({r["patient_id"] for r in splits.nodules(data, p)} for p in splits.UNSEEN)), "nobody who is judged by was trained on")
    for fold in splits.FOLDS:
        check(not {r["patient"] for r in splits.hosts(data, "train")} &
              {r["patient"] for r in splits.hosts(data, "validation") + splits.hosts(data, "test")
               if r["name"] in split["folds"][fold]}, f"no patient of fold {fold} is in train")
    everyone = {r["name"]: r["patient"] for part in (*splits.PARTS, splits.MORE) for r in splits.hosts(data, part)}
    of = [(fold, everyone[name]) for fold in splits.FOLDS + splits.ANEW for name in split["folds"][fold]
          if name not in splits.never_fitted(split)]
    check(len({fold for fold, _ in of}) == 4 and all(len({f for f, p in of if p == patient}) == 1 for _, patient in of),
          "no patient is judged by two folds")
    check({name for fold in splits.ANEW for name in split["folds"][fold]} == set(split["hosts"]["train"]), "c and d are the training hosts")
    moved = copy.deepcopy(split)
    moved["hosts"]["train"].append("lidc-idri-0001")
    check(refuses(data, "train", moved, splits.hosts), "a forbidden host in train is refused")
    moved["patients"]["fixed"]["LIDC-IDRI-0001"] = "train"
    check(refuses(data, "train", moved, splits.nodules), "a forbidden patient in train is refused")
    print({p: (len(splits.hosts(data, p)), len(splits.nodules(data, p))) for p in splits.PARTS})


if __name__ == "__main__":
    main()
