-- The ledger, version 2: what an agent has to remember besides over a restart.

-- What the server asked for, in its last answer that said so, to be done without an answer.
ALTER TABLE session ADD COLUMN failure_handling TEXT;

-- Whose sessions the server has ordered ended, until it asks for them again.
CREATE TABLE aborted (
    subscriber     TEXT    NOT NULL PRIMARY KEY,
    ordered_wall   INTEGER NOT NULL,
    ordered_synced INTEGER NOT NULL CHECK (ordered_synced IN (0, 1))
) STRICT, WITHOUT ROWID;
