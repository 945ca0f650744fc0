#!/usr/bin/env python3
"""Words that have no place in the repository: check_words.py ROOT

Paths of somebody's machine, hosts that only one network knows, notes to oneself.
"""

import re
import sys

import source

SUFFIXES = source.C_SUFFIXES + (".py", ".ts", ".mjs", ".js", ".json", ".html", ".css", ".sh", ".md", ".txt", ".cmake",
                                ".conf", ".example", ".sql", "Makefile", ".yml", ".yaml", ".service")
WORDS = [
    (r"(?<![\w.}$/])/(home|root|Users|work|mnt|media)/[\w.-]+", "a path of one machine"),
    (r"https?://[\w.-]*\.(internal|local|lan|corp)\b", "a host of one network"),
    (r"\"resolved\": *\"(?!https://registry\.npmjs\.org/)", "a package from elsewhere than the public registry"),
    (r"(?<![\w])(TODO|FIXME|XXX|HACK)\b", "a note to oneself: an issue is the place"),
    (r"-----BEGIN [A-Z ]*PRIVATE KEY-----", "a private key"),
]
SELF = "tests/lint/check_words.py"


def faults(root):
    for path in source.files(root, SUFFIXES):
        if path == SELF:
            continue
        for number, line in enumerate(source.read(root, path).splitlines(), 1):
            for pattern, why in WORDS:
                match = re.search(pattern, line)
                if match:
                    yield f"{path}:{number}: {match.group(0)[:60]}: {why}"


if __name__ == "__main__":
    sys.exit(source.report("words", list(faults(sys.argv[1]))))
