#!/usr/bin/env python3
"""Length ratchet: check_length.py ROOT

Functions have at most 70 lines, files 800, lines 120 columns. tests/lint/longer.txt lists what is longer all the same,
"path function lines" or "path - lines"; what is listed may only shrink, and then its entry must follow.
"""

import os
import re
import sys

import source

FUNCTION_MAX, FILE_MAX, COLUMNS_MAX = 70, 800, 120
KEYWORD = re.compile(r"\b(struct|class|union|enum|namespace|extern)\b")


def functions(text):
    """(name, first line, lines) of every function body; scopes that hold declarations are looked into."""
    bare = source.code_without_preprocessor(text)
    scopes = []  # per open brace: (is it a body, name, position of its head)
    head = 0
    for match in re.finditer(r"[{};]", bare):
        inside_body = bool(scopes) and scopes[-1][0]
        position, symbol = match.start(), match.group(0)
        if symbol == "{":
            scopes.append((True, None, 0) if inside_body else _scope(bare, head, position))
        elif symbol == "}" and scopes:
            _, name, start = scopes.pop()
            if name:
                first = source.line_of(bare, start)
                yield name, first, source.line_of(bare, position) - first + 1
        if not (scopes and scopes[-1][0]):
            head = position + 1


def _scope(bare, head, position):
    declaration = bare[head:position]
    start = head + len(declaration) - len(declaration.lstrip())
    named = re.search(r"([~\w:]+)\s*\(", re.sub(r"__attribute__\s*\(\(.*?\)\)", "", declaration))
    is_function = named and re.search(r"\)\s*(const|noexcept|override|\s)*(:[^:].*)?$", declaration, re.DOTALL)
    if is_function and "=" not in declaration.split("(")[0]:
        return True, named.group(1), start
    return not KEYWORD.search(declaration) or "=" in declaration, None, 0


def measured(root):
    """{(path, function or "-"): (lines, limit, first line)} of everything that is longer than its limit."""
    longer = {}
    for path in source.files(root, source.C_SUFFIXES):
        text = source.read(root, path)
        if text.count("\n") > FILE_MAX:
            longer[path, "-"] = (text.count("\n"), FILE_MAX, 1)
        for name, first, lines in functions(text):
            if lines > FUNCTION_MAX:
                longer[path, name] = (lines, FUNCTION_MAX, first)
    return longer


def ratchet(root):
    try:
        text = source.read(root, "tests/lint/longer.txt")
    except FileNotFoundError:
        return {}
    rows = (line.split() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {(path, name): int(lines) for path, name, lines in rows}


def faults(root):
    allowed = ratchet(root)
    longer = measured(root)
    for (path, name), (lines, limit, first) in sorted(longer.items()):
        if lines > allowed.get((path, name), limit):
            yield f"{path}:{first}: {name if name != '-' else 'the file'} has {lines} lines, at most {limit}"
    for (path, name), lines in sorted(allowed.items()):
        now = longer.get((path, name), (0,))[0]
        if now < lines:
            yield f"tests/lint/longer.txt: {path} {name} shrank from {lines} to {now or 'within its limit'}: lower its entry"
    for path in source.files(root, source.C_SUFFIXES):
        for number, line in enumerate(source.read(root, path).splitlines(), 1):
            if len(line) > COLUMNS_MAX:
                yield f"{path}:{number}: {len(line)} columns, at most {COLUMNS_MAX}"


if __name__ == "__main__":
    sys.exit(source.report("length", list(faults(sys.argv[1]))))
