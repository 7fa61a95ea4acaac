-- What an agent with the ledger's first version left when it was killed: a session whose first report was refused for good and whose
-- second one waits for its answer.
INSERT INTO session (opening, charging_id, subscriber, boot, generation, base_uplink, base_downlink, base_throttled_uplink,
    base_throttled_downlink, opened_at, opened_wall, opened_synced, session_ref, next_container, next_unsealed, next_message,
    last_acknowledged, reported, accounted_wall, accounted_synced)
VALUES (1, 3000000001, 'imsi-001010000000001', '5e0f3a3c-0000-4000-8000-000000000001', 7, 1000, 2000, 10, 20, 1000000000,
    1792929601000000, 1, 'ref-1', 1, 1, 1, 0, 1500, 1792929620000000, 1);
INSERT INTO total VALUES (3000000001, 'closed', 800, 700, 0, 0);
INSERT INTO container VALUES (3000000001, 1, 300, 700, 'online', 'time limit', 10000000000, 20000000000, 21000000000,
    1792929610000000, 1, 1792929620000000, 1, 1792929621000000, 1);
UPDATE session SET next_container = 2, next_message = 1;
INSERT INTO container VALUES (3000000001, 2, 500, 0, 'online', 'time limit', 20000000000, 30000000000, 31000000000,
    1792929620000000, 1, 1792929630000000, 1, 1792929631000000, 1);
INSERT INTO message (charging_id, number, operation, first_container, containers, trigger_type, reported, sealed_at, sealed_wall,
    sealed_synced, body, state, cause, set_aside_wall, set_aside_synced)
VALUES (3000000001, 1, 'update', 1, 1, 'time limit', 1000, 21000000000, 1792929621000000, 1, X'7B7D', 'set aside', '400 INVALID',
    1792929622000000, 1);
UPDATE session SET next_container = 3, next_unsealed = 3, next_message = 2;
INSERT INTO message (charging_id, number, operation, first_container, containers, trigger_type, reported, sealed_at, sealed_wall,
    sealed_synced, body)
VALUES (3000000001, 2, 'update', 2, 1, 'time limit', 1500, 31000000000, 1792929631000000, 1, X'7B7D');
UPDATE session SET next_message = 3;
