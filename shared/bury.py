"""Dead letters: a batch that ended its sink each time becomes failures, so that it is known and can be replayed."""

from __future__ import annotations

import uuid

from shared.books import Failure, Settlement
from shared.errors import KILLED_ITS_SINK
from shared.ledger import failed
from shared.monitoring import failure_rows, monitored
from shared.outcome import DOUBTFUL, LETTERS, Outcome, Verdict
from shared.ports import Home
from shared.record import Envelope


def bury(envelope: Envelope, home: Home, table: str = "") -> int:
    """Ends every pending record of the batch as exhausted and gives their number; 0 if the batch was settled already.
    `table` is the stream's monitoring table, empty where there is none.

    Records that an attempt is known to have left in doubt are unknown instead. A message that carries other records
    than its batch says nothing of them: the batch is published again from the archive. Raises Leased while an attempt
    has the batch.
    """
    attempt = uuid.uuid4().hex
    batch, _ = home.batches.begin(envelope.batch, attempt)
    if batch is None:
        return 0
    try:
        if batch.keys != [record.key for record in envelope.records]:
            return 0
        now = home.clock.now()
        letters = list(batch.outcomes)
        cells = home.ledger.cells(batch.integration, batch.stream, list(set(batch.keys)))
        failures = []
        for place, record in enumerate(envelope.records):
            if letters[place] not in (LETTERS[Outcome.PENDING], DOUBTFUL):
                continue
            in_doubt = letters[place] == DOUBTFUL
            outcome = Outcome.UNKNOWN if in_doubt else Outcome.EXHAUSTED
            letters[place] = LETTERS[outcome]
            cells[record.key] = failed(record, cells.get(record.key), batch.run, now)
            verdict = Verdict(outcome, KILLED_ITS_SINK, "the sink ended each time it was given this record's batch")
            failures.append(Failure.of(record, verdict, batch, place, now, envelope.location))
        home.batches.settle(
            Settlement(
                batch=batch.id,
                attempt=attempt,
                outcomes="".join(letters),
                settled=True,
                attempts=batch.attempts,
                keep=False,
                cells=[cells[failure.key] for failure in failures],
                failures=failures,
                closures=(),
                run=batch.run,
                at=now,
                monitored=monitored(table, lambda: failure_rows(failures, now)),
            )
        )
        return len(failures)
    finally:
        home.batches.let_go(envelope.batch, attempt)
