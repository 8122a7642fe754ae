"""Every way this service says no, as a tree.

* SkutrendError
  - Rejected            one record is unusable: dead-letter it, go on
    . Malformed           its bytes do not fit the schema
    . TooLarge            it decompresses to more than a worker may hold
    . Undecodable         the record batch it lies in cannot be decompressed or taken apart
  - Broken              this worker must stop, nothing acked, until an operator has acted
    . BadSetting          a setting is missing, unreadable or contradicts another
    . BadInput            a file given on the command line cannot be used
    . BundleMismatch      the model was exported for other features or is damaged
    . StateMismatch       the stored state was written by another format or other settings
      . StateCorrupt        the stored state is damaged; it has to be rebuilt
    . BrokerTrouble       Kafka refuses or lacks something
      . LoginRefused        the brokers do not let this user in
      . Unavailable         the brokers cannot answer just now
    . Refused             the brokers refuse something for good: a right, a size, a name
    . WrongPartitioner    too much of an input lies on partitions where its keys do not belong
    . FlushFailed         outputs or state could not be written
    . StateInaccessible   the disk does not take or give the local state: does not pass with time
    . Fenced              another worker has taken a partition over
  - SnapshotUnusable    a snapshot cannot be written or read: do without
"""

from __future__ import annotations


class SkutrendError(Exception):
    """Root of every error this project raises on purpose; `str()` is one sentence for a person."""


class Rejected(SkutrendError):  # noqa: N818  # a branch of the tree above, named by what it means
    """One record cannot be used. `code` is stable and goes to the dead letter's headers and the metrics."""

    code = "rejected"


class Malformed(Rejected):
    """The bytes of a record do not fit its schema."""

    code = "malformed"


class TooLarge(Rejected):
    """A record batch decompresses to more than a worker may hold."""

    code = "too_large"


class Undecodable(Rejected):
    """A record batch cannot be decompressed, or what comes out cannot be taken apart into records."""

    code = "undecodable_batch"


class Broken(SkutrendError):  # noqa: N818  # likewise
    """This worker or command must stop; the sentence names the operator's action."""


class BadSetting(Broken):
    """A setting is missing, unreadable or contradicts another one."""


class BadInput(Broken):
    """A file or argument given on the command line cannot be used."""


class BundleMismatch(Broken):
    """A model bundle is damaged or was exported for other features."""


class StateMismatch(Broken):
    """The stored state was written by another format version or for other settings."""


class StateCorrupt(StateMismatch):
    """The stored state is damaged: what it still gives must not be used."""


class BrokerTrouble(Broken):
    """Kafka refuses, or lacks something this worker needs."""


class LoginRefused(BrokerTrouble):
    """The brokers do not let this user in: trying again would not help."""


class Unavailable(BrokerTrouble):
    """The brokers cannot answer just now: trying again helps."""


class Refused(Broken):
    """What the brokers refuse for good: trying again changes nothing before an operator has acted."""


class WrongPartitioner(Broken):
    """A producer does not partition by murmur2: to go on would be to send its whole topic to the dead letters."""


class Fenced(Broken):
    """Another worker has taken the partition over; what this one had not flushed is for that one to do."""


class SnapshotUnusable(SkutrendError):  # noqa: N818  # likewise
    """A snapshot cannot be written, or is not as it was written; nothing depends on it but time."""


class FlushFailed(Broken):
    """Outputs or state could not be written; nothing since the last flush counts as done."""


class StateInaccessible(Broken):
    """The disk does not take or give the local state, for a reason that does not pass with time."""
