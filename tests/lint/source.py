"""What the linters share: which files there are, and C text without comments, strings and preprocessor lines."""

import os
import re
import subprocess

C_SUFFIXES = (".c", ".h", ".cc")


def files(root, suffixes):
    """Paths below root, relative to it, sorted: what git tracks or would track; every file where root is no checkout."""
    if os.path.exists(os.path.join(root, ".git")):
        listed = subprocess.run(
            ["git", "-C", root, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True, capture_output=True, text=True).stdout.split("\0")
    else:
        listed = [os.path.relpath(os.path.join(folder, name), root)
                  for folder, _, names in os.walk(root) for name in names]
    return sorted(path for path in set(listed)
                  if path.endswith(suffixes) and not path.startswith("tests/lint/cases/")
                  and os.path.isfile(os.path.join(root, path)))


def read(root, path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


_TOKEN = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def _blank(match):
    """The same number of lines and columns, so that positions still hold; quotes stay."""
    text = match.group(0)
    inner = re.sub(r"[^\n]", " ", text)
    return inner if text[0] == "/" else text[0] + inner[1:-1] + text[-1]


def code(text):
    """C text with comments and the insides of strings blanked out."""
    return _TOKEN.sub(_blank, text)


def code_without_preprocessor(text):
    """As code(), with directives and their continuation lines blanked out too."""
    return re.sub(r"^[ \t]*#(?:[^\n\\]|\\.|\\\n)*", lambda match: re.sub(r"[^\n]", " ", match.group(0)),
                  code(text), flags=re.MULTILINE)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def report(check, faults):
    """Prints one line a fault and returns the exit status."""
    for fault in faults:
        print(fault)
    print(f"{check}: {len(faults)} faults" if faults else f"{check}: clean")
    return 1 if faults else 0
