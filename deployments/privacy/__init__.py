"""What keeps texts and decisions in order: redaction, the audit log, no core dumps.

- audit: The audit log: one JSON line a decision, with no text in it
- coredump: No core dumps: they hold the texts that are on board
- redact: Personal data in a text, replaced by what kind it was: `<PHONE>` for a phone number

model and all above import it. It imports pipeline, settings.
"""
