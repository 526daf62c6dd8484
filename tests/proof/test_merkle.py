"""The tree, as laws: each way of building it gives one root, each proof holds, and each mutated one does not."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sa_audit.errors import IntegrityFinding, MalformedProof
from sa_audit.proof import Frontier, check_consistency, check_inclusion, leaf_hash, node_hash, tree_root
from sa_audit.proof.merkle import EMPTY_ROOT, consistency_proof, inclusion_proof
from sa_audit.proof.tiles import (
    NodesOfTiles,
    Tile,
    append_tiles,
    frontier_of_tiles,
    index_path,
    widths,
)
from sa_audit.proof.types import Digest
from tests.vectors import rfc6962

SIZES = st.integers(1, 300)


def entries(size: int) -> list[bytes]:
    """Give entries that differ."""
    return [number.to_bytes(4, "big") for number in range(size)]


def reader(leaves: list[bytes]) -> Callable[[int, int], Digest]:
    """Give the hash of any complete subtree, by the definition."""
    return lambda level, index: Digest(rfc6962.mth(leaves[index << level : (index + 1) << level]))


# -- appending ---------------------------------------------------------------------------


@given(st.lists(st.integers(0, 40), max_size=8))
def test_however_a_tree_is_appended_to_its_root_is_the_definition_s(batches: list[int]) -> None:
    """In batches of any size, from the frontier alone, which holds a hash for each bit of the size."""
    leaves = entries(sum(batches))
    frontier, done = Frontier(), 0
    for batch in batches:
        frontier = frontier.append(map(leaf_hash, leaves[done : done + batch]))
        done += batch
        assert frontier.root() == rfc6962.mth(leaves[:done])
        assert len(frontier.hashes) == done.bit_count()
    assert tree_root(map(leaf_hash, leaves)) == frontier.root()


def test_a_frontier_of_the_greatest_tree_fits() -> None:
    """63 hashes, and nothing grows beyond."""
    frontier = Frontier(2**63 - 1, tuple(leaf_hash(bytes([i])) for i in range(63)))
    assert len(frontier.root()) == 32
    with pytest.raises(MalformedProof, match="0 to 9223372036854775807 leaves"):
        frontier.append([leaf_hash(b"")])


@pytest.mark.parametrize(("size", "count"), [(1, 0), (2, 2), (3, 1), (0, 1)])
def test_a_frontier_with_another_number_of_hashes_is_refused(size: int, count: int) -> None:
    """A state file that was tampered with or cut is not appended to."""
    with pytest.raises(MalformedProof, match=f"the frontier of {size} leaves"):
        Frontier(size, (Digest(bytes(32)),) * count)


def test_a_frontier_of_short_hashes_is_refused() -> None:
    """A hash has 32 bytes."""
    with pytest.raises(MalformedProof, match="a hash has 32 bytes"):
        Frontier(1, (Digest(bytes(31)),))


def test_leaves_and_nodes_are_told_apart() -> None:
    """A node can't be passed off as a leaf: their hashes have other prefixes (RFC 6962, section 2.1)."""
    left, right = leaf_hash(b"a"), leaf_hash(b"b")
    assert node_hash(left, right) != leaf_hash(left + right)
    assert tree_root([]) == EMPTY_ROOT != leaf_hash(b"")


# -- proofs ------------------------------------------------------------------------------


@given(SIZES, st.data())
def test_every_leaf_is_proved(size: int, data: st.DataObject) -> None:
    """The path is the definition's, and leads to the root."""
    leaves = entries(size)
    index = data.draw(st.integers(0, size - 1))
    path = inclusion_proof(index, size, reader(leaves))
    assert list(path) == rfc6962.path(index, leaves)
    check_inclusion(index, size, leaf_hash(leaves[index]), path, rfc6962.mth(leaves))


@given(SIZES, st.data())
def test_every_beginning_is_proved(size: int, data: st.DataObject) -> None:
    """The proof is the definition's, and leads to both roots."""
    leaves = entries(size)
    old = data.draw(st.integers(0, size))
    path = consistency_proof(old, size, reader(leaves))
    assert list(path) == rfc6962.proof(old, leaves)
    check_consistency(old, size, rfc6962.mth(leaves[:old]), rfc6962.mth(leaves), path)


def mutated(draw: st.DrawFn, path: list[bytes]) -> list[bytes]:
    """Give a path with one thing changed."""
    kinds = ["insert", "append"] + (["flip", "drop", "double"] if path else []) + (["swap"] if len(path) > 1 else [])
    kind = draw(st.sampled_from(kinds))
    place = draw(st.integers(0, max(0, len(path) - 1)))
    if kind == "insert":
        return [*path[:place], draw(st.binary(min_size=32, max_size=32)), *path[place:]]
    if kind == "append":
        return [*path, draw(st.binary(min_size=32, max_size=32))]
    if kind == "drop":
        return [*path[:place], *path[place + 1 :]]
    if kind == "double":
        return [*path[:place], path[place], *path[place:]]
    if kind == "swap":
        other = draw(st.integers(0, len(path) - 1))
        path = list(path)
        path[place], path[other] = path[other], path[place]
        return path
    flipped = bytearray(path[place])
    flipped[draw(st.integers(0, 31))] ^= 1 << draw(st.integers(0, 7))
    return [*path[:place], bytes(flipped), *path[place + 1 :]]


mutate = st.composite(mutated)


@given(SIZES, st.data())
def test_every_mutated_proof_of_inclusion_is_refused(size: int, data: st.DataObject) -> None:
    """A bit, a hash more or less, two swapped."""
    leaves = entries(size)
    index = data.draw(st.integers(0, size - 1))
    path = rfc6962.path(index, leaves)
    changed = data.draw(mutate(path))
    assume(changed != path)
    with pytest.raises((IntegrityFinding, MalformedProof)):
        check_inclusion(index, size, leaf_hash(leaves[index]), changed, rfc6962.mth(leaves))


@given(SIZES, st.data())
def test_another_leaf_or_place_or_root_is_refused(size: int, data: st.DataObject) -> None:
    """A true path proves nothing but its own leaf at its own place."""
    leaves = entries(size)
    index, other = data.draw(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)))
    path, root = rfc6962.path(index, leaves), rfc6962.mth(leaves)
    assume(index != other)
    for leaf, place, root_ in (
        (leaves[other], index, root),
        (leaves[index], other, root),
        (leaves[index], index, rfc6962.mth(leaves[1:])),
    ):
        with pytest.raises((IntegrityFinding, MalformedProof)):
            check_inclusion(place, size, leaf_hash(leaf), path, root_)


@given(SIZES, st.data())
def test_every_mutated_proof_of_consistency_is_refused(size: int, data: st.DataObject) -> None:
    """A bit, a hash more or less, two swapped."""
    leaves = entries(size)
    old = data.draw(st.integers(0, size))
    path = rfc6962.proof(old, leaves)
    changed = data.draw(mutate(path))
    assume(changed != path)
    with pytest.raises((IntegrityFinding, MalformedProof)):
        check_consistency(old, size, rfc6962.mth(leaves[:old]), rfc6962.mth(leaves), changed)


@given(SIZES, st.data())
def test_a_history_that_was_rewritten_has_no_proof(size: int, data: st.DataObject) -> None:
    """One leaf changed in the old part: the old root does not fit any more, whatever the new tree proves."""
    leaves = entries(size)
    old = data.draw(st.integers(1, size))
    place = data.draw(st.integers(0, old - 1))
    rewritten = [*leaves[:place], b"rewritten", *leaves[place + 1 :]]
    path = rfc6962.proof(old, rewritten)
    with pytest.raises(IntegrityFinding, match="is not the beginning"):
        check_consistency(old, size, rfc6962.mth(leaves[:old]), rfc6962.mth(rewritten), path)


@given(st.integers(-1, 40), st.integers(-1, 40), st.lists(st.binary(min_size=31, max_size=33), max_size=8), st.binary())
def test_anything_is_judged_as_the_definition_judges_it(first: int, size: int, path: list[bytes], leaf: bytes) -> None:
    """Nothing else than the declared errors comes out, and what the definition accepts is accepted."""
    root = rfc6962.root_of_path(first, size, rfc6962.leaf(leaf), path)
    if root is not None:
        check_inclusion(first, size, rfc6962.leaf(leaf), path, root)
        return
    with pytest.raises((IntegrityFinding, MalformedProof)):
        check_inclusion(first, size, rfc6962.leaf(leaf), path, bytes(32))


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 1), (0, 2**63)])
def test_a_leaf_that_is_not_there_is_not_proved(index: int, size: int) -> None:
    """Neither made nor checked."""
    with pytest.raises(MalformedProof, match="there is no leaf"):
        inclusion_proof(index, size, reader([]))
    with pytest.raises(MalformedProof, match="there is no leaf"):
        check_inclusion(index, size, bytes(32), [], bytes(32))


def test_a_tree_does_not_shrink() -> None:
    """A greater old size is an error and not an empty proof."""
    with pytest.raises(MalformedProof, match="can't have grown"):
        consistency_proof(2, 1, reader([]))
    with pytest.raises(MalformedProof, match="can't have grown"):
        check_consistency(2, 1, bytes(32), bytes(32), [])


def test_a_tree_of_no_leaves_has_one_root() -> None:
    """On either side of a proof, and between two of them."""
    root = leaf_hash(b"")
    check_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
    check_consistency(0, 1, EMPTY_ROOT, root, [])
    for old, new, old_root, new_root in ((0, 0, root, root), (0, 0, EMPTY_ROOT, root), (0, 1, root, root)):
        with pytest.raises(IntegrityFinding):
            check_consistency(old, new, old_root, new_root, [])


# -- tiles -------------------------------------------------------------------------------


class Shelf:
    """Keeps tiles as a database would: the widest of each place."""

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], Tile] = {}
        self.frontier = Frontier()

    def append(self, leaves: list[bytes]) -> None:
        edge = {level: self.tiles[level, index] for level, index, _width in widths(self.frontier.size)}
        hashes = [leaf_hash(leaf) for leaf in leaves]
        for tile in append_tiles(self.frontier, edge, hashes):
            self.tiles[tile.level, tile.index] = tile
        self.frontier = self.frontier.append(hashes)

    def read(self, level: int, index: int, width: int) -> Tile:
        return self.tiles[level, index]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 600), min_size=1, max_size=6), st.data())
def test_proofs_from_tiles_are_the_definition_s(batches: list[int], data: st.DataObject) -> None:
    """Tiles that grew in batches give the frontier, the hash of each subtree, and each proof."""
    size = sum(batches)
    assume(size)
    leaves, shelf, done = entries(size), Shelf(), 0
    for batch in batches:
        shelf.append(leaves[done : done + batch])
        done += batch
    assert frontier_of_tiles(size, shelf.read) == shelf.frontier
    index, old = data.draw(st.tuples(st.integers(0, size - 1), st.integers(0, size)))
    assert list(inclusion_proof(index, size, NodesOfTiles(size, shelf.read))) == rfc6962.path(index, leaves)
    assert list(consistency_proof(old, size, NodesOfTiles(size, shelf.read))) == rfc6962.proof(old, leaves)


def test_tiles_are_those_of_the_specification() -> None:
    """C2SP tlog-tiles gives the tiles of a tree of 70,000 leaves as its example; and of 256."""
    shelf = Shelf()
    shelf.append(entries(70_000))
    found: dict[int, list[int]] = {}
    for (level, _index), tile in sorted(shelf.tiles.items()):
        found.setdefault(level, []).append(tile.width)
    assert {level: (seen.count(256), seen[-1]) for level, seen in found.items()} == {
        0: (273, 112),
        1: (1, 17),
        2: (0, 1),
    }
    assert list(widths(256)) == [(1, 0, 1)]
    assert shelf.tiles[0, 0].hash(1) == leaf_hash(entries(2)[1])
    assert shelf.tiles[1, 0].hash(1) == rfc6962.mth(entries(70_000)[256:512])
    assert shelf.tiles[0, 273].path == "tile/0/273.p/112"
    assert index_path(1_234_067) == "x001/x234/067"


def test_tiles_that_were_tampered_with_are_not_appended_to() -> None:
    """The frontier that the sealer keeps tells; each kind of tampering is named with the tile."""
    shelf = Shelf()
    shelf.append(entries(300))
    good = shelf.tiles[0, 1]
    bad = Tile(0, 1, good.data[:-32] + bytes(32))
    for edge in ({0: bad, 1: shelf.tiles[1, 0]}, {1: shelf.tiles[1, 0]}, {0: Tile(0, 1, good.data[:-32])}):
        with pytest.raises(IntegrityFinding, match="tile 0/1"):
            append_tiles(shelf.frontier, edge, [leaf_hash(b"")])


def test_a_proof_from_false_tiles_fails() -> None:
    """A tile is not trusted: what it says is found when the proof is checked."""
    shelf = Shelf()
    leaves = entries(600)
    shelf.append(leaves)
    tile = shelf.tiles[0, 1]
    shelf.tiles[0, 1] = Tile(0, 1, tile.data[:32] + bytes(32) + tile.data[64:])
    path = inclusion_proof(256, 600, NodesOfTiles(600, shelf.read))
    with pytest.raises(IntegrityFinding):
        check_inclusion(256, 600, leaf_hash(leaves[256]), path, rfc6962.mth(leaves))


def test_another_tile_than_asked_for_is_found() -> None:
    """Swapped, or too narrow."""
    shelf = Shelf()
    shelf.append(entries(600))
    for wrong in (shelf.tiles[0, 1], Tile(0, 0, shelf.tiles[0, 0].data[:64])):
        with pytest.raises(IntegrityFinding, match="tile 0/0 with 256 hashes was expected"):
            NodesOfTiles(600, lambda level, index, width, wrong=wrong: wrong)(0, 1)  # type: ignore[misc]  # a default


def test_a_tile_that_is_too_narrow_is_found() -> None:
    """Wherever hashes are taken from it."""
    shelf = Shelf()
    shelf.append(entries(300))
    narrow = Tile(0, 1, shelf.tiles[0, 1].data[:-32])
    with pytest.raises(IntegrityFinding, match="expected 44, got 43"):
        frontier_of_tiles(300, lambda level, index, width: narrow if level == 0 else shelf.tiles[level, index])
    with pytest.raises(IntegrityFinding, match="expected 44, got 43"):
        narrow.subtree(2, 10)


def test_looking_up_hashes_keeps_few_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is given up, and read again when it is asked for."""
    monkeypatch.setattr("sa_audit.proof.tiles.KEPT", 2)
    shelf, read = Shelf(), []
    shelf.append(entries(1200))

    def reading(level: int, index: int, width: int) -> Tile:
        read.append(index)
        return shelf.read(level, index, width)

    nodes = NodesOfTiles(1200, reading)
    for index in (0, 256, 0, 512, 256, 0):
        assert nodes(0, index) == leaf_hash(entries(1200)[index])
    assert read == [0, 1, 2, 0]


@pytest.mark.parametrize(("level", "index", "data"), [(8, 0, bytes(32)), (-1, 0, bytes(32)), (0, -1, bytes(32))])
def test_a_tile_that_no_tree_has_is_refused(level: int, index: int, data: bytes) -> None:
    """Levels go from 0 to 7."""
    with pytest.raises(MalformedProof, match="there is no tile"):
        Tile(level, index, data)


@pytest.mark.parametrize("size", [0, 31, 33, 257 * 32])
def test_a_tile_of_another_length_is_refused(size: int) -> None:
    """1 to 256 hashes of 32 bytes."""
    with pytest.raises(MalformedProof, match="are not 1 to 256 hashes"):
        Tile(0, 0, bytes(size))


def test_appending_keeps_memory_flat() -> None:
    """200,000 leaves go through a frontier of 17 hashes and a stream."""
    tracemalloc.start()
    try:
        frontier = Frontier().append(leaf_hash(number.to_bytes(4, "big")) for number in range(200_000))
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert frontier.size == 200_000
    assert peak < 1_000_000
