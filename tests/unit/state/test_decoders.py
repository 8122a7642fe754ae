"""Types of stored records are known to msgspec before threads decode them: it crashes where two begin at once."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

# one start in many crashed, where threads met; in a child process, for a crash is the end of it
RACE = textwrap.dedent(
    """
    import sys, threading
    from streams.state import meta, snapshots
    from features.grid import WindowGrid
    from features.sku_state import SkuState
    from inference.pipeline import columns
    import msgspec

    sys.setswitchinterval(1e-6)
    record = meta.fresh_meta(SkuState(WindowGrid(), extra_columns=columns(None)), model="none")
    raw = msgspec.msgpack.encode(record)
    start = threading.Barrier(8)
    failed = []

    def read():
        start.wait()
        failed.extend([] if meta.read_meta(raw, where="here") == record else ["other"])

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    """
)


@pytest.mark.slow
def test_threads_may_read_the_first_meta_records_of_a_process_at_once() -> None:
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - our own code
        assert done.returncode == 0, done.stderr
