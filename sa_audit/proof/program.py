"""``verify.py``: the parts of :mod:`.standalone`, joined to the one file that a bundle carries.

Imports nothing of the library.
"""

from __future__ import annotations

import functools
import importlib.resources
import re
from typing import Final

PARTS: Final = (*("fault", "cbor", "values", "records", "tree", "ed25519", "notes", "texts", "bundle", "main"),)
"""The modules in the order in which they stand in the file."""
HEADER: Final = '''\
#!/usr/bin/env python3
"""verify.py: checks a bundle of evidence from an audit trail with Python 3.9's standard library and nothing else.

    python3 verify.py BUNDLE.zip --key KEY_OR_POLICY [--held CHECKPOINT]

It follows docs/format of sa_audit: RFC 6962 and 9162, RFC 8032, RFC 8949, and of C2SP signed-note, tlog-checkpoint,
tlog-cosignature, tlog-tiles, tlog-proof and tlog-policy; it shares no code with the program that wrote the bundle.
The key, or the policy, has to come from where you trust it.
Exit codes: 0 nothing found, 1 findings, 2 wrong usage, 3 no bundle.
"""

from __future__ import annotations

'''
FOOTER: Final = """

if __name__ == "__main__":
    sys.exit(main())
"""
_IMPORT: Final = re.compile(r"^(?:import [a-z0-9]+|from (?!\.|__)[a-z.]+ import .+)$", re.MULTILINE)
_NAMES: Final = re.compile(r"^from ([a-z.]+) import (.+)$")


@functools.cache
def program() -> bytes:
    """Give the text of ``verify.py``."""
    heads, bodies = [], []
    for part in PARTS:
        text = importlib.resources.files(__package__).joinpath("standalone", f"{part}.py").read_text(encoding="utf-8")
        head, line, body = text.partition("\n# -- ")
        heads.append(head)
        bodies.append(line + body)
    return (HEADER + _imports("\n".join(heads)) + "\n" + "\n".join(bodies) + FOOTER).encode()


def _imports(heads: str) -> str:
    """Give the imports of the standard library that stand in some heads, each once."""
    lines = set(_IMPORT.findall(heads))
    whole = sorted(line for line in lines if line.startswith("import "))
    names: dict[str, set[str]] = {}
    for line in lines - set(whole):
        match = _NAMES.fullmatch(line)
        if match is not None:
            names.setdefault(match[1], set()).update(match[2].split(", "))
    parted = [f"from {module} import {', '.join(sorted(found))}" for module, found in sorted(names.items())]
    return "\n".join([*whole, *parted]) + "\n"
