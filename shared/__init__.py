"""The domain: records, outcomes, two stories and the ports they need. No I/O, no environment, no clock of its own."""
