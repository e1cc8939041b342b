"""Dead letters: a batch that ended its sink each time becomes failures, so that it is known and can be replayed."""

from __future__ import annotations

import uuid

from shared.errors import KILLED_ITS_SINK
from shared.ledger import failed
from shared.outcome import DOUBTFUL, LETTERS, Outcome
from shared.ports import Failure, Home, Settlement
from shared.record import Envelope, failure_id
from shared.stream import Stream


def bury(envelope: Envelope, stream: Stream, home: Home) -> int:
    """Ends every pending record of the batch as exhausted and gives their number; 0 if the batch was settled already.

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
        cells = home.ledger.cells(stream.integration, stream.name, list(set(batch.keys)))
        failures = []
        for place, record in enumerate(envelope.records):
            if letters[place] not in (LETTERS[Outcome.PENDING], DOUBTFUL):
                continue
            in_doubt = letters[place] == DOUBTFUL
            outcome = Outcome.UNKNOWN if in_doubt else Outcome.EXHAUSTED
            letters[place] = LETTERS[outcome]
            cells[record.key] = failed(record, cells.get(record.key), batch.run, now)
            failures.append(
                Failure(
                    id=failure_id(stream.integration, stream.name, record.key, record.version),
                    integration=stream.integration,
                    stream=stream.name,
                    key=record.key,
                    version=record.version,
                    operation=record.operation,
                    origin=record.origin,
                    position=record.position,
                    data=record.data,
                    outcome=outcome,
                    number=KILLED_ITS_SINK,
                    reason="the sink ended each time it was given this record's batch",
                    run=batch.run,
                    batch=batch.id,
                    place=place,
                    first_at=now,
                    last_at=now,
                )
            )
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
            )
        )
        return len(failures)
    finally:
        home.batches.let_go(envelope.batch, attempt)
