-- The ledger, version 2: what an agent has to remember besides over a restart.

-- What the server asked for, in its last answer that said so, to be done without an answer.
ALTER TABLE session ADD COLUMN failure_handling TEXT;
