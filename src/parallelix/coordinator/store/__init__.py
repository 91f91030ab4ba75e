"""What the coordinator must not forget: one schema on SQLite or PostgreSQL, one writer, commits in groups.

    journal.py      the event loop's side: gathers rows, one transaction a group, says when they are durable
    store.py        opens, migrates, leads, loads and commits; synchronous, driven by the journal's one thread
    readers.py      everything that is asked of the past, on connections of their own
    statements.py   rows to SQL          queries.py   named SQL
    schema.py       the tables           migrations/  how they came about
    sqlite.py, postgresql.py             what differs between the two

The drivers are the synchronous ones: a group costs one hop to the writer's thread and back, where an asynchronous
driver would hop for every statement of it.
"""
