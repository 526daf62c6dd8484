"""Make the vectors of ``docs/format`` anew: `python -m tests.vectors.make`.

Each file is JSON that a stranger's implementation can be tested with; bytes are hexadecimal.  All follows from the
texts in this package, so a run that changes nothing shows that the format has not changed.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.vectors.canonical import canonical
from tests.vectors.checkpoints import checkpoints
from tests.vectors.entries import entries
from tests.vectors.merkle import merkle

HERE = Path(__file__).parent
FILES = {"canonical": canonical, "entries": entries, "merkle": merkle, "checkpoint": checkpoints}


def text(name: str) -> str:
    """Give the content of a file of vectors."""
    return json.dumps(FILES[name](), indent=1, ensure_ascii=True) + "\n"


def main() -> None:
    """Write all files."""
    for name in FILES:
        (HERE / f"{name}.json").write_text(text(name), encoding="ascii")


if __name__ == "__main__":
    main()
