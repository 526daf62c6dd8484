"""PROVE: canonical bytes, the Merkle tree, checkpoints, keys and bundles, as ``docs/format`` says them.

Bytes only: nothing here knows of a database, and a verifier needs `cryptography` and the standard library.

>>> from sa_audit.proof import Checkpoint, Policy, Signer, tree_root, leaf_hash
>>> signer = Signer.generate("bank.example/audit")
>>> root = tree_root([leaf_hash(b"first"), leaf_hash(b"second")])
>>> checkpoint = Checkpoint(origin=signer.name, size=2, root=root).sign(signer)
>>> Policy.of(signer.verifier).check(Checkpoint.parse(checkpoint.format())).logs == (signer.verifier,)
True
"""

from .bundle import Leaf, write_bundle
from .bundle_check import BundleFinding, BundleReport, check_bundle
from .canonical import RowEncoder, decode_row
from .checkpoint import Checkpoint
from .entries import (
    BlockEntry,
    CatalogEntry,
    IncarnationEntry,
    KeyEntry,
    PersonKeyEntry,
    PruneEntry,
    RowEntry,
    SchemaEntry,
    decode_entry,
    key_commitment,
)
from .forms import Array, Interval, form
from .keys import Signer, SigningKey, Verifier
from .merkle import Frontier, check_consistency, check_inclusion, leaf_hash, node_hash, tree_root
from .policy import KeyHistory, Policy, Signed
from .schema import Column, Descriptor
from .tlog_proof import ConsistencyProof, Evidence, Proof

__all__ = [
    "Array",
    "BlockEntry",
    "BundleFinding",
    "BundleReport",
    "CatalogEntry",
    "Checkpoint",
    "Column",
    "ConsistencyProof",
    "Descriptor",
    "Evidence",
    "Frontier",
    "IncarnationEntry",
    "Interval",
    "KeyEntry",
    "KeyHistory",
    "Leaf",
    "PersonKeyEntry",
    "Policy",
    "Proof",
    "PruneEntry",
    "RowEncoder",
    "RowEntry",
    "SchemaEntry",
    "Signed",
    "Signer",
    "SigningKey",
    "Verifier",
    "check_bundle",
    "check_consistency",
    "check_inclusion",
    "decode_entry",
    "decode_row",
    "form",
    "key_commitment",
    "leaf_hash",
    "node_hash",
    "tree_root",
    "write_bundle",
]
