-- The ledger, version 4: usage by five minutes, by days of the operator's own time, and by link.

-- Acknowledged usage by the span in which its container was closed. Five minutes and hours begin at an instant; a day and a month are
-- dates of the time zone in which the agent lived when it was added, and `start` is the midnight of that date in UTC (up to version 3 all
-- dates were those of UTC). The newest spans in which anything passed are kept: 576 of five minutes, 1440 hours, 730 days, all months.
CREATE TABLE history_4 (
    granularity      TEXT    NOT NULL CHECK (granularity IN ('5min', 'hour', 'day', 'month')),
    subscriber       TEXT    NOT NULL,
    start            INTEGER NOT NULL,
    uplink           INTEGER NOT NULL CHECK (uplink >= 0),
    downlink         INTEGER NOT NULL CHECK (downlink >= 0),
    offline_uplink   INTEGER NOT NULL CHECK (offline_uplink >= 0),
    offline_downlink INTEGER NOT NULL CHECK (offline_downlink >= 0),
    synced           INTEGER NOT NULL CHECK (synced IN (0, 1)),
    PRIMARY KEY (granularity, subscriber, start)
) STRICT, WITHOUT ROWID;
INSERT INTO history_4 SELECT granularity, subscriber, start, uplink, downlink, offline_uplink, offline_downlink, synced FROM history;
DROP TABLE history;
ALTER TABLE history_4 RENAME TO history;
CREATE INDEX history_start ON history (granularity, start);

-- Which SIMs a link has ever carried.
CREATE TABLE carried (
    link       TEXT NOT NULL,
    subscriber TEXT NOT NULL,
    PRIMARY KEY (link, subscriber)
) STRICT, WITHOUT ROWID;
