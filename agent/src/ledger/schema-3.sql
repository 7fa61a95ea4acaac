-- The ledger, version 3: what passes a link whose package is used up.

-- What the server said with the last units still passes after them, as JSON (rules, names of filters, portal); NULL = nothing.
ALTER TABLE grant_last ADD COLUMN exceptions TEXT;
