#!/usr/bin/env python3
"""Banned calls: check_calls.py ROOT

A call that is right all the same says so on its line: /* lint: allow NAME: why */
"""

import re
import sys

import source

BANNED = {
    "strcpy": "no bound", "strcat": "no bound", "sprintf": "no bound", "vsprintf": "no bound", "gets": "no bound",
    "strncpy": "leaves texts without their end", "strncat": "its bound is not what it seems",
    "atoi": "hides faults", "atol": "hides faults", "atoll": "hides faults", "atof": "hides faults",
    "alloca": "no bound", "system": "a shell", "popen": "a shell", "strtok": "hidden state", "rand": "hidden state",
    "srand": "hidden state", "tmpnam": "a race", "mktemp": "a race", "localtime": "hidden state",
    "gmtime": "hidden state", "asctime": "hidden state", "ctime": "hidden state", "setjmp": "skips clean-up",
    "longjmp": "skips clean-up",
}
CALL = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(")


def faults(root):
    for path in source.files(root, source.C_SUFFIXES):
        text = source.read(root, path)
        lines = text.splitlines()
        bare = source.code(text)
        for match in CALL.finditer(bare):
            number = source.line_of(bare, match.start())
            name = match.group(1)
            if re.search(rf"/\* lint: allow {name}: (?!\*/)\S", lines[number - 1]):
                continue
            yield f"{path}:{number}: {name}: {BANNED[name]}"


if __name__ == "__main__":
    sys.exit(source.report("banned calls", list(faults(sys.argv[1]))))
