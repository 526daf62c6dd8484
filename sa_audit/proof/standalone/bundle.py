"""The bundle: each step of its checking.  A part of ``verify.py``; see this package."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from .cbor import read_head
from .fault import ROW_LIMIT, TREE_LIMIT, Bad, need
from .notes import Checkpoint, Policy, text_within
from .records import Schema, check_row, decode_entry
from .texts import Proof
from .tree import leaf_hash, root_of, roots_of_subtrees
from .values import integers, line, text

# -- the bundle ---------------------------------------------------------------------------

ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, RuntimeError, IndexError, KeyError)
NAMES = re.compile(
    r"(entries\.cbor|checkpoint\.txt|policy\.txt|README\.txt|verify\.py|manifest\.json"
    r"|rows/[1-9][0-9]{0,9}-[0-9a-f]{16}\.(cbor|csv)|tile/[0-7]/(x[0-9]{3}/)*[0-9]{3}(\.p/[1-9][0-9]{0,2})?"
    r"|proofs/(0|[1-9][0-9]*)\.tlog-proof|consistency/(0|[1-9][0-9]*)-(0|[1-9][0-9]*)\.txt"
    r"|anchors/[A-Za-z0-9_-][A-Za-z0-9._-]*)\Z"
)
TILE = re.compile(r"tile/([0-7])/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([0-9]+))?\Z")


class Bundle:
    """A bundle under check; ``findings`` are texts."""

    def __init__(self, path: str, policy: Policy, held: Checkpoint | None = None) -> None:
        self.policy, self.held = policy, held
        self.findings: list[str] = []
        self.entries = self.rows = self.proofs = 0
        self.schemas: dict[bytes, Schema] = {}
        self.tile = (-1, b"")
        try:
            self.zip = zipfile.ZipFile(path)
        except ZIP_ERRORS as error:
            raise Bad(f"is not a zip file: {error}") from None
        self.members: dict[str, zipfile.ZipInfo] = {}
        for info in self.zip.infolist():
            need(info.filename not in self.members and len(self.members) < 1_000_000, "has a file twice, or too many")
            need(re.match(r"[A-Za-z0-9._/-]+\Z", info.filename), "has the name {!r:.80}", info.filename)
            need(not info.flag_bits & 1 and info.compress_type in (0, 8), "has a part of another kind")
            self.members[info.filename] = info
        self.manifest = self._manifest()
        self.checkpoint = Checkpoint(self.read("checkpoint.txt", 128 * 1024))

    def _manifest(self) -> dict[str, Any]:
        try:
            said: dict[str, Any] = json.loads(self.read("manifest.json", 64 * 2**20).decode("utf-8"))
        except (ValueError, RecursionError):
            raise Bad("has a manifest that is not JSON") from None
        need(type(said) is dict and said.get("format") == "sa_audit/bundle/v1", "has a manifest of another format")
        names = ("origin", str), ("size", int), ("root", str), ("selection", str), ("ranges", list), ("files", list)
        need(len(said) == 7 and all(type(said.get(n)) is t for n, t in names), "has a manifest of another form")
        last = -1
        for each in said["ranges"]:
            need(integers(2)(each) and last < each[0] < each[1] <= said["size"], "has the range {!r:.80}", each)
            last = each[1]
        for each in said["files"]:
            need(type(each) is dict and set(each) == {"name", "size", "sha256"}, "lists {!r:.80}", each)
            need(type(each["name"]) is str, "lists {!r:.80}", each)
        listed = [each["name"] for each in said["files"]]
        need(listed == sorted(set(listed)), "lists files twice or out of order")
        return said

    def read(self, name: str, limit: int) -> bytes:
        """Give a whole file."""
        need(name in self.members and self.members[name].file_size <= limit, "has no {}, or one too long", name)
        return self.pieces(name)(limit + 1)

    def pieces(self, name: str) -> Callable[[int], bytes]:
        """Open a file; give what reads the next bytes of it."""
        need(name in self.members, "has no {}", name)

        def guarded(step: Callable[..., Any], *given: object) -> Any:
            try:
                return step(*given)
            except ZIP_ERRORS as error:
                raise Bad(f"has {name}, which can't be read: {error}") from None

        member = guarded(self.zip.open, self.members[name])
        return lambda size: guarded(member.read, size)

    def found(self, where: str, what: object) -> None:
        """Note a finding."""
        self.findings.append(f"{where}: {what}")

    def attempt(self, where: str, step: Callable[..., Any], *given: object) -> Any:
        """Take a step; what is not as the format says is a finding."""
        try:
            return step(*given)
        except Bad as bad:
            self.found(where, bad)
            return None

    def check(self) -> list[str]:
        """Check all; give the findings."""
        self.files()
        self.attempt("checkpoint.txt", self.policy.check, self.checkpoint)
        self.attempt("policy.txt", lambda: Policy(text_within(self.read("policy.txt", 65536), 65536)))
        true = {"origin": self.checkpoint.origin, "size": self.checkpoint.size, "root": self.checkpoint.root.hex()}
        said = {name: self.manifest[name] for name in true}
        if said != true:
            self.found("manifest.json", f"says {said!r}, and the checkpoint {true!r}")
        for name in self.members:
            if name.startswith("tile/"):
                self.attempt(name, self.tile_fits, name)
        self.attempt("tile", self.root_fits)
        self.attempt("entries.cbor", self.leaves)
        shown = self.held is None or self.held.text == self.checkpoint.text
        for name in self.members:
            if name.startswith("proofs/"):
                self.attempt(name, self.proof, name)
            if name.startswith("consistency/"):
                shown = bool(self.attempt(name, self.consistency, name)) or shown
        if not shown:
            self.found("consistency", "there is no proof from the checkpoint that is held")
        return self.findings

    def files(self) -> None:
        """The files are those of the manifest."""
        listed = {each["name"]: each for each in self.manifest["files"]}
        for name in sorted((set(listed) | set(self.members)) - {"manifest.json"}):
            if name not in listed or name not in self.members or not NAMES.match(name):
                self.found(name, "is not in both the manifest and the bundle, or has a name not allowed")
            else:
                self.attempt(name, self.same, name, listed[name])
        for name in ("entries.cbor", "checkpoint.txt", "policy.txt", "README.txt", "verify.py"):
            if name not in self.members:
                self.found(name, "is not there")

    def same(self, name: str, listed: dict[str, object]) -> None:
        """A file has the size and the digest that the manifest says."""
        digest, size, take = hashlib.sha256(), 0, self.pieces(name)
        chunk = take(2**20)
        while chunk:
            digest.update(chunk)
            size += len(chunk)
            chunk = take(2**20)
        got = {"name": name, "size": size, "sha256": digest.hexdigest()}
        need(got == listed, "is not what the manifest says: expected {}, got {}", listed, got)

    # -- tiles

    def read_tile(self, level: int, index: int) -> bytes:
        """Give the hashes of a tile of this tree, in one piece."""
        width = min((self.checkpoint.size >> (8 * level)) - index * 256, 256)
        need(width > 0, "there is no tile {}/{}", level, index)
        data = self.read(tile_name(level, index, width), 8192)
        need(len(data) == 32 * width, "tile {}/{} has another width than {}", level, index, width)
        return data

    def tile_fits(self, name: str) -> None:
        """A full tile has its hash in the level above."""
        match = TILE.match(name)
        if match is None:
            raise Bad("is not the name of a tile")
        level, index = int(match.group(1)), int(re.sub("[x/]", "", match.group(2)))
        data = self.read_tile(level, index)
        need(name == tile_name(level, index, len(data) // 32), "is not a tile of this tree")
        if len(data) == 8192:
            at = 32 * (index % 256)
            expected = self.read_tile(level + 1, index // 256)[at : at + 32]
            got = root_of(roots_of_subtrees(data[i : i + 32] for i in range(0, 8192, 32)))
            need(got == expected, "does not fit: expected {}, got {}", expected.hex(), got.hex())

    def root_fits(self) -> None:
        """The tiles at the right edge lead to the root."""
        subtrees = []
        for level in range(7, -1, -1):
            count = self.checkpoint.size >> (8 * level)
            if count % 256:
                data = self.read_tile(level, count // 256)
                subtrees += roots_of_subtrees(data[i : i + 32] for i in range(0, len(data), 32))
        got = root_of(subtrees)
        need(got == self.checkpoint.root, "expected the root {}, got {}", self.checkpoint.root.hex(), got.hex())

    # -- leaves and rows

    def pairs(self, name: str, limit: int) -> Iterator[tuple[int, bytes]]:
        """Yield indexes and bytes of a sequence, ascending."""
        take, last = self.pieces(name), -1
        first = take(1)
        while first:
            need(first == b"\x82", "is not a sequence of arrays of two")
            index, size = self.argument(take, 0), self.argument(take, 2)
            need(last < index < TREE_LIMIT and size <= limit, "has index {} behind {}, or is too long", index, last)
            data = take(size)
            need(len(data) == size, "ends too early")
            yield index, data
            last, first = index, take(1)

    @staticmethod
    def argument(take: Callable[[int], bytes], major: int) -> int:
        """Read the head of an item of a kind."""
        first = take(1)
        need(first and first[0] >> 5 == major, "is not a sequence of index and bytes")
        more = take(1 << max((first[0] & 31) - 24, 0)) if 24 <= first[0] & 31 <= 27 else b""
        return read_head(first + more, 0)[0]

    def leaves(self) -> None:
        """Each entry is in the tree, each row is that of its entry, each range is complete."""
        runs: list[list[int]] = []
        open_rows: dict[str, Rows] = {}
        self.attempt("entries.cbor", self.each_leaf, runs, open_rows)
        for first, end in self.manifest["ranges"]:
            for start, stop in [*runs, [end, end]]:
                if first < start:
                    self.found("entries.cbor", f"lacks the leaves {first} to {min(start, end) - 1} of a range")
                first = max(first, stop)
                if first >= end:
                    break
        for rows in open_rows.values():
            rows.end()
        names = {name for name in self.members if name.startswith("rows/")}
        for name in sorted(names - {n + end for n in open_rows for end in (".cbor", ".csv")}):
            self.found(name, "has no entry in the bundle")

    def each_leaf(self, runs: list[list[int]], open_rows: dict[str, Rows]) -> None:
        """Go through the entries, and note which follow each other."""
        for index, data in self.pairs("entries.cbor", 65535):
            self.entries += 1
            if runs and runs[-1][1] == index:
                runs[-1][1] += 1
            else:
                runs.append([index, index + 1])
            self.attempt(f"entries.cbor, leaf {index}", self.leaf, index, data, open_rows)

    def leaf(self, index: int, data: bytes, open_rows: dict[str, Rows]) -> None:
        """An entry is in its place in the tree; its row is checked."""
        need(index < self.checkpoint.size, "is beyond the tree")
        if self.tile[0] != index // 256:
            self.tile = index // 256, self.read_tile(0, index // 256)
        at = 32 * (index % 256)
        expected, got = self.tile[1][at : at + 32], leaf_hash(data)
        if got != expected:
            self.found(f"entries.cbor, leaf {index}", f"expected {expected.hex()}, got {got.hex()}")
        kind, items = decode_entry(data)
        if kind == 3:
            schema = Schema(items[1])
            self.schemas[schema.digest] = schema
        if kind == 1:
            need(items[3] in self.schemas, "has no schema before it")
            schema = self.schemas[items[3]]
            if schema.file not in open_rows and schema.file + ".cbor" in self.members:
                open_rows[schema.file] = Rows(self, schema)
            if schema.file in open_rows:
                open_rows[schema.file].take(index, items)

    # -- proofs

    def proof(self, name: str) -> None:
        """A proof of inclusion holds."""
        proof = Proof(self.read(name, 64 * 2**20))
        proof.check(self.policy)
        need(name == f"proofs/{proof.number}.tlog-proof", "is a proof of another leaf")
        need(proof.checkpoint.text == self.checkpoint.text, "is a proof to another checkpoint")
        self.proofs += 1

    def consistency(self, name: str) -> bool:
        """A proof of consistency is one to this checkpoint, and holds if it is from the one that is held."""
        proof = Proof(self.read(name, 256 * 1024), consistency=True)
        need(proof.checkpoint.text == self.checkpoint.text, "is a proof to another checkpoint")
        need(name == f"consistency/{proof.number}-{self.checkpoint.size}.txt", "is a proof of other sizes")
        self.proofs += 1
        if self.held is None or self.held.size != proof.number:
            return False
        proof.check_consistency(self.policy, self.held)
        return True


def tile_name(level: int, index: int, width: int) -> str:
    """Give the name of a tile."""
    digits = str(index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    parts = [digits[i : i + 3] for i in range(0, len(digits), 3)]
    path = "/".join(["x" + part for part in parts[:-1]] + parts[-1:])
    return f"tile/{level}/{path}" + ("" if width == 256 else f".p/{width}")


class Rows:
    """The rows of one table and schema, and the same to read."""

    def __init__(self, bundle: Bundle, schema: Schema) -> None:
        self.bundle, self.schema, self.name = bundle, schema, schema.file
        self.pairs = bundle.pairs(self.name + ".cbor", ROW_LIMIT)
        self.ahead = self.following()
        self.readable = bundle.attempt(self.name + ".csv", bundle.pieces, self.name + ".csv")
        self.compare(line(["leaf"] + [name for name, _type in schema.columns]))

    def following(self) -> tuple[int, bytes] | None:
        """Give the next row, or None."""
        pair: tuple[int, bytes] | None = self.bundle.attempt(self.name + ".cbor", next, self.pairs, None)
        return pair

    def skip_to(self, index: int) -> None:
        """Find rows that no entry has asked for."""
        while self.ahead is not None and self.ahead[0] < index:
            self.bundle.found(f"{self.name}.cbor, leaf {self.ahead[0]}", "has no entry in the bundle")
            self.readable, self.ahead = None, self.following()

    def take(self, index: int, items: Sequence[Any]) -> None:
        """Check the row of an entry, if it is there."""
        self.skip_to(index)
        if self.ahead is None or self.ahead[0] != index:
            return
        data, self.ahead = self.ahead[1], self.following()
        self.bundle.rows += 1
        values = self.bundle.attempt(f"{self.name}.cbor, leaf {index}", check_row, items, self.schema, data)
        if values is None:
            self.readable = None
            return
        types = [name for _name, name in self.schema.columns]
        self.compare(line([str(index)] + [text(types[i], value) for i, value in enumerate(values)]))

    def compare(self, expected: bytes) -> None:
        """Compare a line of the readable file, until one differs."""
        if self.readable is not None:
            got = self.bundle.attempt(self.name + ".csv", self.readable, len(expected))
            if got != expected:
                self.bundle.found(self.name + ".csv", f"expected {expected!r}, got {got!r}")
                self.readable = None

    def end(self) -> None:
        """Find what is left over."""
        self.skip_to(TREE_LIMIT)
        if self.readable is not None and self.bundle.attempt(self.name + ".csv", self.readable, 1):
            self.bundle.found(self.name + ".csv", "goes on behind its last row")
