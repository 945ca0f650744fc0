#!/usr/bin/env python3
"""Include direction: check_includes.py ROOT

A module sees the shared nouns and its own folder; what else it may see is listed here, and what is not listed is
refused. Others see a folder only through <folder>/<folder>.h. Third-party headers stay where they are quarantined.
"""

import os
import re
import sys

import source

SHARED = {"pulmo.h", "digest.h", "random.h", "svg.h", "tally.h", "workers.h"}
MODULES = {"dicom", "store", "infer", "volume", "phantom", "evaluation", "uncertainty", "explain", "web"}
ALLOWED = {"uncertainty": {"infer"}, "explain": {"infer"}, "web": {"store"}}
LOGS = {"web"}  # only loops log, and the web server is one
# The application wires the modules; benchmarks and the root's own files stand outside of the order.
SEES_ALL = {"", "app", "bench"}

QUARANTINE = [  # header pattern, who may include it, why
    (r"(dnnl|oneapi/dnnl/).*", r"infer/(cpu|backend_cpu)[a-z0-9_]*\.[ch]|bench/.*", "oneDNN: only the CPU back-end"),
    (r"png\.h", r"explain/png[a-z0-9_]*\.c", "libpng: one file"),
    (r"sqlite3\.h", r"store/.*", "SQLite: only store/"),
    (r"dcmtk/.*", r"dicom/[a-z0-9_]*\.cc", "DCMTK: only behind its shim, in C++"),
    (r"openjpeg.*", r"dicom/.*", "OpenJPEG: only dicom/"),
    (r"cuda.*|cudnn.*", r"infer/cuda/.*", "CUDA: only the plugin"),
    (r"event2/.*|evhttp.*", r"web/.*", "libevent: only web/"),
    (r"argon2\.h", r"store/.*", "Argon2: only store/"),
    (r"openssl/.*", r"(digest\.c|random\.c|store/.*|web/.*|dicom/.*|app/.*|bench/.*)", "OpenSSL: TLS and digest edges"),
]


def owner(path):
    """The folder whose rules hold for a file, and whether it is a test of that folder."""
    parts = path.split("/")
    if parts[0] in ("tests", "fuzz"):
        match = re.match(r"(?:test_|fuzz_)?([a-z0-9]+?)(?:_.*)?\.[a-z]+$", parts[-1])
        return (match.group(1) if match else ""), True
    return (parts[0] if len(parts) > 1 else ""), False


def local_fault(path, header, root):
    """Why a quoted include is refused, or None."""
    folder, is_test = owner(path)
    if header in SHARED or folder not in MODULES:
        return None if folder not in MODULES and not is_test else _known(header)
    target = header.split("/")[0] if "/" in header else ""
    if not target and os.path.exists(os.path.join(root, os.path.dirname(path), header)):
        return None if is_test else f'write "{os.path.dirname(path)}/{header}"'
    if target == folder or (is_test and target == "tests") or (header == "log.h" and folder in LOGS):
        return None
    if is_test and header in ("volume/volume.h", "phantom/phantom.h"):
        return None  # the reference input of the tests
    if target in ALLOWED.get(folder, ()):
        return None if header == f"{target}/{target}.h" else f"{folder} sees {target} only through {target}/{target}.h"
    return f"{folder} must not know of {target or header}"


def _known(header):
    if header in SHARED or "/" not in header or header.split("/")[0] in MODULES | SEES_ALL | {"tests"}:
        return None
    return "an unknown folder"


def outside_fault(path, header):
    """The application sees other folders only through their public header."""
    folder, _ = owner(path)
    target = header.split("/")[0] if "/" in header else ""
    if folder in SEES_ALL and target in MODULES and header != f"{target}/{target}.h":
        return f"others see {target} only through {target}/{target}.h"
    return None


def system_fault(path, header):
    for pattern, where, why in QUARANTINE:
        if re.fullmatch(pattern, header) and not re.fullmatch(where, path) and not owner(path)[1]:
            return why
    return None


def faults(root):
    for path in source.files(root, source.C_SUFFIXES):
        for number, line in enumerate(source.read(root, path).splitlines(), 1):
            match = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
            if not match:
                continue
            kind, header = match.groups()
            fault = (local_fault(path, header, root) or outside_fault(path, header)) if kind == '"' else None
            fault = fault or system_fault(path, header)
            if fault:
                yield f'{path}:{number}: includes {header}: {fault}'


if __name__ == "__main__":
    sys.exit(source.report("include direction", list(faults(sys.argv[1]))))
