-- The ledger, version 2: what an agent has to remember besides over a restart.

-- What the server asked for, in its last answer that said so, to be done without an answer.
ALTER TABLE session ADD COLUMN failure_handling TEXT;

-- Whose sessions the server has ordered ended, until it asks for them again.
CREATE TABLE aborted (
    subscriber     TEXT    NOT NULL PRIMARY KEY,
    ordered_wall   INTEGER NOT NULL,
    ordered_synced INTEGER NOT NULL CHECK (ordered_synced IN (0, 1))
) STRICT, WITHOUT ROWID;

-- How far the gate may have been open, in octets of the session, so that after a power cut the ledger alone knows what may be missing.
-- The highest ceiling of all grants and graces; 0 in a session of version 1, whose last grant and grace are known.
ALTER TABLE session ADD COLUMN highest_ceiling INTEGER NOT NULL DEFAULT 0;
-- Octets beyond what is recorded; NULL = up to the highest ceiling.
ALTER TABLE session ADD COLUMN slice INTEGER;
-- What may have passed after the last reading; set once, when the counters were found to be lost.
ALTER TABLE session ADD COLUMN uncertain INTEGER;

-- Of a message that is set aside: 0 = the server refused it for good, 1 = it may have been taken, and is not sent again.
ALTER TABLE message ADD COLUMN in_doubt INTEGER NOT NULL DEFAULT 0 CHECK (in_doubt IN (0, 1));

-- 1 = no attempt so far was taken, for certain. What an earlier version has sealed may have been.
ALTER TABLE message ADD COLUMN not_taken INTEGER NOT NULL DEFAULT 0 CHECK (not_taken IN (0, 1));

-- What a container says of its time may have come from a clock that was not set: until it is sealed, that is put right.
DROP TRIGGER container_immutable;
CREATE TRIGGER container_immutable BEFORE UPDATE OF
    charging_id, number, uplink, downlink, quota_management, trigger_type, first_usage, last_usage, closed_at
ON container
BEGIN SELECT RAISE(ABORT, 'a closed container never changes'); END;

CREATE TRIGGER container_label BEFORE UPDATE OF
    first_wall, first_synced, last_wall, last_synced, closed_wall, closed_synced
ON container
WHEN OLD.closed_synced OR EXISTS (
    SELECT 1 FROM message m
    WHERE m.charging_id = OLD.charging_id
      AND OLD.number >= m.first_container AND OLD.number < m.first_container + m.containers
)
BEGIN SELECT RAISE(ABORT, 'a closed container never changes, but for labels of a clock that was not set, until it is sealed'); END;
