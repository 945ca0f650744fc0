#!/usr/bin/env python3
"""Every private code that a report may carry is in the conformance statement, with its meaning.

check_codes.py [ROOT]"""

import pathlib
import re
import sys

root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
source = root / "dicom" / "sr_codes.c"
statement = root / "docs" / "CONFORMANCE.md"
faults = 0
if source.exists():
    stated = set(re.findall(r"^\| (PULMO\d+) \| (.+) \|$", statement.read_text() if statement.exists() else "", re.M))
    used = set(re.findall(r'\{"(PULMO\d+)", "99PULMO", "([^"]+)"\}', source.read_text()))
    for code, meaning in sorted(used - stated):
        print(f"docs/CONFORMANCE.md: {code} \"{meaning}\" is missing")
        faults += 1
    for code, meaning in sorted(stated - used):
        print(f"docs/CONFORMANCE.md: {code} \"{meaning}\" is in no report")
        faults += 1
print("codes: clean" if not faults else f"codes: {faults} faults")
sys.exit(1 if faults else 0)
