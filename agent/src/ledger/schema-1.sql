-- The ledger, version 1. What must never happen is refused here, by the database itself.
--
-- Counts of octets and instants are 64-bit patterns (a ceiling may be 2^64 - 1): they are never compared in SQL. Containers are
-- the exception, below 2^31 by a CHECK, so sums of them stay far from the sign. `_wall` is microseconds since 1970 UTC, and
-- `_synced` tells whether the kernel held the clock for synchronised when the label was made.

CREATE TABLE setting (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE session (
    opening                 INTEGER PRIMARY KEY,
    charging_id             INTEGER NOT NULL UNIQUE CHECK (charging_id BETWEEN 0 AND 4294967295),
    subscriber              TEXT    NOT NULL,
    boot                    TEXT    NOT NULL,
    generation              INTEGER NOT NULL,
    base_uplink             INTEGER NOT NULL,
    base_downlink           INTEGER NOT NULL,
    base_throttled_uplink   INTEGER NOT NULL,
    base_throttled_downlink INTEGER NOT NULL,
    opened_at               INTEGER NOT NULL,
    opened_wall             INTEGER NOT NULL,
    opened_synced           INTEGER NOT NULL CHECK (opened_synced IN (0, 1)),
    session_ref             TEXT,
    closing                 TEXT,
    next_container          INTEGER NOT NULL DEFAULT 1,
    -- Containers from here up to next_container are closed but in no message.
    next_unsealed           INTEGER NOT NULL DEFAULT 1 CHECK (next_unsealed <= next_container),
    next_message            INTEGER NOT NULL DEFAULT 0,
    last_acknowledged       INTEGER CHECK (last_acknowledged < next_message),
    reported                INTEGER NOT NULL DEFAULT 0,
    -- How far usage is accounted for: the opening, then the end of the last container.
    accounted_wall          INTEGER NOT NULL,
    accounted_synced        INTEGER NOT NULL CHECK (accounted_synced IN (0, 1)),
    grace_ceiling           INTEGER,
    grace_until             INTEGER,
    grants                  INTEGER NOT NULL DEFAULT 0,
    granted                 INTEGER NOT NULL DEFAULT 0,
    -- The last reading is taken: what the meter counts from then on is another session's.
    settled                 INTEGER NOT NULL DEFAULT 0 CHECK (settled IN (0, 1)),
    -- Lost by the server: what is left goes as one-time events.
    orphaned                INTEGER NOT NULL DEFAULT 0 CHECK (orphaned IN (0, 1)),
    closed_wall             INTEGER,
    closed_synced           INTEGER CHECK (closed_synced IN (0, 1)),
    CHECK ((grace_ceiling IS NULL) = (grace_until IS NULL)),
    CHECK ((closed_wall IS NULL) = (closed_synced IS NULL))
) STRICT;

CREATE INDEX session_open ON session (opening) WHERE closed_wall IS NULL;

-- Running totals of a session: everything ever closed, and where it went.
CREATE TABLE total (
    charging_id      INTEGER NOT NULL REFERENCES session (charging_id),
    account          TEXT    NOT NULL CHECK (account IN ('closed', 'acknowledged')),
    uplink           INTEGER NOT NULL CHECK (uplink >= 0),
    downlink         INTEGER NOT NULL CHECK (downlink >= 0),
    offline_uplink   INTEGER NOT NULL CHECK (offline_uplink >= 0),
    offline_downlink INTEGER NOT NULL CHECK (offline_downlink >= 0),
    PRIMARY KEY (charging_id, account)
) STRICT, WITHOUT ROWID;

-- The last grant of each session.
CREATE TABLE grant_last (
    charging_id INTEGER NOT NULL PRIMARY KEY REFERENCES session (charging_id),
    ceiling     INTEGER NOT NULL,
    octets      INTEGER NOT NULL,
    threshold   INTEGER NOT NULL,
    valid_until INTEGER,
    holding     INTEGER,
    final_unit  TEXT,
    result      TEXT    NOT NULL
) STRICT;

-- The last cumulative reading of each session's epoch.
CREATE TABLE checkpoint (
    charging_id        INTEGER NOT NULL PRIMARY KEY REFERENCES session (charging_id),
    passed_uplink      INTEGER NOT NULL,
    passed_downlink    INTEGER NOT NULL,
    throttled_uplink   INTEGER NOT NULL,
    throttled_downlink INTEGER NOT NULL,
    read_at            INTEGER NOT NULL,
    read_wall          INTEGER NOT NULL,
    read_synced        INTEGER NOT NULL CHECK (read_synced IN (0, 1))
) STRICT;

-- Containers that no positive answer has covered yet.
CREATE TABLE container (
    charging_id      INTEGER NOT NULL REFERENCES session (charging_id),
    number           INTEGER NOT NULL CHECK (number BETWEEN 1 AND 4294967295),
    uplink           INTEGER NOT NULL CHECK (uplink >= 0),
    downlink         INTEGER NOT NULL CHECK (downlink >= 0),
    quota_management TEXT    NOT NULL CHECK (quota_management IN ('online', 'offline')),
    trigger_type     TEXT    NOT NULL,
    first_usage      INTEGER NOT NULL,
    last_usage       INTEGER NOT NULL,
    closed_at        INTEGER NOT NULL,
    first_wall       INTEGER NOT NULL,
    first_synced     INTEGER NOT NULL CHECK (first_synced IN (0, 1)),
    last_wall        INTEGER NOT NULL,
    last_synced      INTEGER NOT NULL CHECK (last_synced IN (0, 1)),
    closed_wall      INTEGER NOT NULL,
    closed_synced    INTEGER NOT NULL CHECK (closed_synced IN (0, 1)),
    PRIMARY KEY (charging_id, number),
    CONSTRAINT container_below_2_to_the_31 CHECK (uplink + downlink < 2147483648)
) STRICT, WITHOUT ROWID;

-- Sealed messages: outstanding, or set aside. `acknowledged` and `void` (the server lost the
-- session) last only as long as the transaction that deletes the row.
CREATE TABLE message (
    charging_id      INTEGER NOT NULL REFERENCES session (charging_id),
    number           INTEGER NOT NULL CHECK (number BETWEEN 0 AND 4294967295),
    operation        TEXT    NOT NULL CHECK (operation IN ('create', 'update', 'release', 'event')),
    requested        INTEGER,
    first_container  INTEGER NOT NULL CHECK (first_container >= 1),
    containers       INTEGER NOT NULL CHECK (containers >= 0),
    trigger_type     TEXT,
    reported         INTEGER NOT NULL,
    sealed_at        INTEGER NOT NULL,
    sealed_wall      INTEGER NOT NULL,
    sealed_synced    INTEGER NOT NULL CHECK (sealed_synced IN (0, 1)),
    body             BLOB    NOT NULL CHECK (length(body) > 0),
    state            TEXT    NOT NULL DEFAULT 'outstanding'
                     CHECK (state IN ('outstanding', 'set aside', 'acknowledged', 'void')),
    cause            TEXT,
    set_aside_wall   INTEGER,
    set_aside_synced INTEGER CHECK (set_aside_synced IN (0, 1)),
    PRIMARY KEY (charging_id, number),
    CHECK ((state = 'set aside') = (cause IS NOT NULL)),
    CHECK ((cause IS NULL) = (set_aside_wall IS NULL)),
    CHECK ((cause IS NULL) = (set_aside_synced IS NULL))
) STRICT;

-- One charging request in flight per session.
CREATE UNIQUE INDEX message_in_flight ON message (charging_id) WHERE state = 'outstanding';

-- Acknowledged usage by the hour, day and month (UTC) in which its container was closed. Stays for good: an hour is one row of
-- about 60 octets, half a megabyte a year for a SIM in use all the time.
CREATE TABLE history (
    granularity      TEXT    NOT NULL CHECK (granularity IN ('hour', 'day', 'month')),
    subscriber       TEXT    NOT NULL,
    start            INTEGER NOT NULL,
    uplink           INTEGER NOT NULL CHECK (uplink >= 0),
    downlink         INTEGER NOT NULL CHECK (downlink >= 0),
    offline_uplink   INTEGER NOT NULL CHECK (offline_uplink >= 0),
    offline_downlink INTEGER NOT NULL CHECK (offline_downlink >= 0),
    synced           INTEGER NOT NULL CHECK (synced IN (0, 1)),
    PRIMARY KEY (granularity, subscriber, start)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER container_contiguous BEFORE INSERT ON container
WHEN NEW.number IS NOT (SELECT next_container FROM session WHERE charging_id = NEW.charging_id)
BEGIN SELECT RAISE(ABORT, 'containers of a session are numbered without a gap'); END;

CREATE TRIGGER container_immutable BEFORE UPDATE ON container
BEGIN SELECT RAISE(ABORT, 'a closed container never changes'); END;

CREATE TRIGGER container_kept BEFORE DELETE ON container
WHEN NOT EXISTS (
    SELECT 1 FROM message m
    WHERE m.charging_id = OLD.charging_id AND m.state = 'acknowledged'
      AND OLD.number >= m.first_container AND OLD.number < m.first_container + m.containers
)
BEGIN SELECT RAISE(ABORT, 'a container is deleted only with the acknowledged message that carried it'); END;

CREATE TRIGGER message_contiguous BEFORE INSERT ON message
WHEN NEW.number IS NOT (SELECT next_message FROM session WHERE charging_id = NEW.charging_id)
BEGIN SELECT RAISE(ABORT, 'messages of a session are numbered without a gap'); END;

CREATE TRIGGER message_immutable BEFORE UPDATE OF
    charging_id, number, operation, requested, first_container, containers, trigger_type, reported,
    sealed_at, sealed_wall, sealed_synced, body
ON message
BEGIN SELECT RAISE(ABORT, 'a sealed message never changes'); END;

CREATE TRIGGER message_settled BEFORE UPDATE OF state, cause, set_aside_wall, set_aside_synced ON message
WHEN OLD.state <> 'outstanding'
BEGIN SELECT RAISE(ABORT, 'only an outstanding message can be acknowledged or set aside'); END;

CREATE TRIGGER message_kept BEFORE DELETE ON message
WHEN OLD.state NOT IN ('acknowledged', 'void')
BEGIN SELECT RAISE(ABORT, 'a sealed message is deleted only when it is acknowledged'); END;
