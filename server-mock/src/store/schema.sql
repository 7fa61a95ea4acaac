-- Times are milliseconds since 1970, volumes octets, documents JSON.
CREATE TABLE sims (
    iccid TEXT PRIMARY KEY, subscriber TEXT NOT NULL UNIQUE, apn TEXT NOT NULL, rating_groups TEXT NOT NULL
) STRICT;
CREATE TABLE claim_codes (code TEXT PRIMARY KEY, used_by TEXT) STRICT;
CREATE TABLE devices (
    device_id TEXT PRIMARY KEY, nf_instance_id TEXT NOT NULL UNIQUE, public_key TEXT NOT NULL,
    request TEXT NOT NULL, answer TEXT NOT NULL, registered_at INTEGER NOT NULL
) STRICT;
CREATE TABLE bindings (
    id TEXT PRIMARY KEY, device_id TEXT NOT NULL REFERENCES devices, slot TEXT NOT NULL,
    iccid TEXT NOT NULL UNIQUE REFERENCES sims, UNIQUE (device_id, slot)
) STRICT;
CREATE TABLE tokens (
    hash BLOB PRIMARY KEY, device_id TEXT NOT NULL REFERENCES devices, scope TEXT NOT NULL, expires_at INTEGER NOT NULL
) STRICT;
CREATE TABLE assertions (
    device_id TEXT NOT NULL, jti TEXT NOT NULL, expires_at INTEGER NOT NULL, PRIMARY KEY (device_id, jti)
) STRICT;
-- AUTOINCREMENT: a number that was acknowledged and deleted is never given again.
CREATE TABLE commands (
    number INTEGER PRIMARY KEY AUTOINCREMENT, device_id TEXT NOT NULL REFERENCES devices, command TEXT NOT NULL, subscriber TEXT
) STRICT;
CREATE TABLE plans (plan_id TEXT PRIMARY KEY, terms TEXT NOT NULL) STRICT;
CREATE TABLE packages (
    id TEXT PRIMARY KEY, subscriber TEXT NOT NULL REFERENCES sims (subscriber), rating_group INTEGER NOT NULL,
    terms TEXT NOT NULL, total INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0, offline INTEGER NOT NULL DEFAULT 0,
    valid_until INTEGER, is_current INTEGER NOT NULL DEFAULT 1
) STRICT;
CREATE UNIQUE INDEX one_current_package ON packages (subscriber, rating_group) WHERE is_current;
CREATE TABLE sessions (
    ref TEXT PRIMARY KEY, nf_name TEXT NOT NULL, subscriber TEXT NOT NULL, charging_id INTEGER NOT NULL,
    created_at INTEGER NOT NULL, released_at INTEGER, last_sequence_number INTEGER NOT NULL
) STRICT;
CREATE TABLE reservations (
    ref TEXT NOT NULL REFERENCES sessions, rating_group INTEGER NOT NULL, subscriber TEXT NOT NULL,
    octets INTEGER NOT NULL, expires_at INTEGER NOT NULL, PRIMARY KEY (ref, rating_group)
) STRICT;
CREATE INDEX reservations_by_end ON reservations (expires_at);
CREATE INDEX reservations_by_subscriber ON reservations (subscriber, rating_group);
-- The first answer to each message. scope is the session's ref, or create/ and the charging id.
CREATE TABLE answers (
    nf_name TEXT NOT NULL, scope TEXT NOT NULL, sequence_number INTEGER NOT NULL, fingerprint BLOB NOT NULL,
    status INTEGER NOT NULL, location TEXT, body BLOB NOT NULL, PRIMARY KEY (nf_name, scope, sequence_number)
) STRICT;
-- Containers that were booked: the second line of defence against charging twice.
CREATE TABLE containers (
    nf_name TEXT NOT NULL, charging_id INTEGER NOT NULL, rating_group INTEGER NOT NULL, local_sequence_number INTEGER NOT NULL,
    PRIMARY KEY (nf_name, charging_id, rating_group, local_sequence_number)
) STRICT, WITHOUT ROWID;
CREATE TABLE ledger (
    id INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, subscriber TEXT NOT NULL,
    rating_group INTEGER NOT NULL, package_id TEXT, nf_name TEXT, charging_id INTEGER, ref TEXT, local_sequence_number INTEGER,
    total INTEGER, uplink INTEGER, downlink INTEGER, balance INTEGER
) STRICT;
CREATE INDEX ledger_by_subscriber ON ledger (subscriber, kind);
