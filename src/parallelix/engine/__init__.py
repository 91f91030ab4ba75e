"""The coordinator's mind: one deterministic state machine. Events in; rows, effects and an answer out.

Pure: the clock and randomness are arguments, and nothing here opens a file, a socket or a database.
"""
