"""The tree of errors: one root, one class per decision that a caller can take.

::

    AuditError
    ├── ConfigurationError       the declaration is wrong: mend the model or the call
    ├── ActorRequired            say who: sa_audit.context(actor=...)
    ├── ReasonRequired           say why: sa_audit.context(reason=...)
    ├── UnauditedWrite           a change that can't be recorded: write it another way
    ├── CaptureMissing           the database lacks the trail's tables, guards or triggers: migrate
    ├── TrailNotEmpty            the history holds rows, so it is not dropped
    ├── NotAudited               there is no history of this: ask about something else
    ├── InvalidMoment            a moment that can't be travelled to: give another one
    │   └── PrunedHistory        its history was pruned: give a later one, or look for an export
    ├── LegalHold                the person's rows are held: end the hold first
    ├── ReadOnlyPast             the past can't be written: use restore() or revert()
    ├── Conflict                 later changes stand in the way of a revert
    ├── ErasedValue              the value's key was destroyed
    ├── Unencodable              a value that has no canonical form, so it can't be sealed or checked
    ├── MalformedProof           not a checkpoint, proof, bundle or entry in its format: get another copy
    ├── UnusableKey              a key that can't be read, opened or used: give the right one, or its password
    ├── SealRefused              state, log, anchors or database don't agree: find out why, then rebase
    ├── SealerBusy               another sealer is at work: stop one of them
    ├── NotSealed                there is no leaf to prove it by yet: seal, or wait with await_sealed()
    ├── SealTimeout              a transaction is not sealed and anchored yet: look at the sealer
    ├── AnchorUnavailable        an anchor can't be written or read now: look at its place, and try again
    └── IntegrityFinding         the record does not fit its proof

A message says what happened, to which value, and what to do.  Imports nothing.
"""

from __future__ import annotations


class AuditError(Exception):
    """The root of all errors that the library raises."""


class ConfigurationError(AuditError):
    """A declaration, option or argument that can't be used as it is."""


class ActorRequired(AuditError):
    """A change without an actor, where the configuration asks for one."""


class ReasonRequired(AuditError):
    """A change without a reason, where the configuration asks for one."""


class UnauditedWrite(AuditError):
    """A write that could not be recorded, and therefore was refused or rolled back."""


class CaptureMissing(AuditError):
    """The database has no trail, or not the one that the models ask for."""


class TrailNotEmpty(AuditError):
    """History with recorded rows would have been dropped."""


class NotAudited(AuditError):
    """Something was asked about that has no history."""


class InvalidMoment(AuditError):
    """A moment that can't be travelled to: naive, unreadable, or before the records begin."""


class PrunedHistory(InvalidMoment):
    """What was asked about lies in a range of the history that was pruned."""


class LegalHold(AuditError):
    """A person whose rows are under a legal hold was to be erased."""


class ReadOnlyPast(AuditError):
    """A past session was asked to write, lock, or run text that could."""


class Conflict(AuditError):
    """Later changes stand in the way of undoing an earlier one."""


class ErasedValue(AuditError):
    """A value whose key has been destroyed."""


class Unencodable(AuditError):
    """A value that has no canonical form."""


class MalformedProof(AuditError):
    """Bytes that are not a checkpoint, proof, bundle, entry or verifier key in its one form."""


class UnusableKey(AuditError):
    """A signing key that can't be read, opened with that password, made or used."""


class SealRefused(AuditError):
    """The sealer's state, the log, an anchor and the database do not agree, so nothing is sealed."""


class SealerBusy(AuditError):
    """Another sealer is at work on the same log."""


class NotSealed(AuditError):
    """What is to be proven is not in the log yet."""


class SealTimeout(AuditError):
    """A transaction was not sealed and anchored in time; it is committed all the same."""


class AnchorUnavailable(AuditError):
    """An anchor that can't be written or read now."""


class IntegrityFinding(AuditError):
    """A recorded row does not fit its proof."""
