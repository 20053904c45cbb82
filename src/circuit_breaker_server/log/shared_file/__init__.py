"""One SQLite log for several processes of one machine: one of them writes, the others ask it to."""
