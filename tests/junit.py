#!/usr/bin/env python3
"""Turns ctest's JUnit file into "pass|fail|skip<tab>name" lines: junit.py FILE STAGE

A program that uses cmocka counts by its test functions, as its output names them; any other program counts as one.
"""

import re
import sys
import xml.etree.ElementTree as tree

LINE = re.compile(r"^\[ *(OK|FAILED|SKIPPED) *\] (\w+)$", re.MULTILINE)
WORDS = {"OK": "pass", "FAILED": "fail", "SKIPPED": "skip"}


def outcomes(case):
    """{test function: outcome} of one program."""
    output = case.findtext("system-out") or ""
    found = {name: WORDS[word] for word, name in LINE.findall(output)}
    whole = ("skip" if case.find("skipped") is not None or case.get("status") in ("notrun", "disabled")
             else "pass" if case.get("status") == "run" and case.find("failure") is None else "fail")
    if case.get("status") == "notrun" and "SKIP_RETURN_CODE" not in tree.tostring(case, encoding="unicode"):
        whole = "fail"  # the program was not built
    if whole == "fail" and "fail" not in found.values():
        found["(program)"] = "fail"  # a crash, a leak, a time-out
    return found or {"(program)": whole}


def main(path, stage):
    for case in tree.parse(path).getroot().iter("testcase"):
        for name, outcome in outcomes(case).items():
            suffix = "" if name == "(program)" else f" {name}"
            print(f"{outcome}\t{stage} {case.get('name')}{suffix}")


if __name__ == "__main__":
    main(*sys.argv[1:])
