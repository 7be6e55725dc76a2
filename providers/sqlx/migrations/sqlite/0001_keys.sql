-- Data keys, their wraps, and what happened to them. Runs in one transaction with the others.
-- Ids and scopes are bytes; times are microseconds since 1970-01-01T00:00:00Z.

CREATE TABLE encx_migrations (
    version    INTEGER PRIMARY KEY,
    applied_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('now', 'subsec') * 1000000 AS INTEGER))
) STRICT;

CREATE TABLE encx_data_keys (
    -- A UUID of version 7, in the variant that has versions.
    id             BLOB NOT NULL PRIMARY KEY CHECK (
                       length(id) = 16
                       AND substr(hex(id), 13, 1) = '7' AND substr(hex(id), 17, 1) IN ('8', '9', 'A', 'B')),
    scope          BLOB NOT NULL CHECK (length(scope) = 32),
    usage          INTEGER NOT NULL CHECK (usage BETWEEN 1 AND 255),
    version        INTEGER NOT NULL CHECK (version BETWEEN 1 AND 2147483647),
    state          TEXT NOT NULL CHECK (
                       state IN ('pre-active', 'active', 'deactivated', 'suspended', 'compromised', 'destroyed')),
    suspended_from TEXT CHECK (suspended_from IN ('pre-active', 'active', 'deactivated')),
    context        TEXT NOT NULL CHECK (json_type(context) = 'object'),
    key_check      BLOB NOT NULL CHECK (length(key_check) = 32),
    revision       INTEGER NOT NULL CHECK (revision >= 1),
    created_at     INTEGER NOT NULL,
    activated_at   INTEGER,
    deactivated_at INTEGER,
    destroyed_at   INTEGER,
    changed_at     INTEGER NOT NULL,
    UNIQUE (scope, version),
    CHECK ((state = 'suspended') = (suspended_from IS NOT NULL)),
    CHECK ((state = 'destroyed') = (destroyed_at IS NOT NULL)),
    CHECK (state <> 'active' OR activated_at IS NOT NULL)
) STRICT;

-- Two active versions of one scope cannot exist.
CREATE UNIQUE INDEX encx_data_keys_active ON encx_data_keys (scope) WHERE state = 'active';
-- The poll for changes.
CREATE INDEX encx_data_keys_changed ON encx_data_keys (changed_at, id);
-- Lists by usage and state.
CREATE INDEX encx_data_keys_listed ON encx_data_keys (usage, state, id);

CREATE TABLE encx_wrapped_keys (
    key_id       BLOB NOT NULL REFERENCES encx_data_keys (id),
    kms          TEXT NOT NULL CHECK (length(CAST(kms AS BLOB)) BETWEEN 1 AND 64),
    kek          TEXT NOT NULL CHECK (length(CAST(kek AS BLOB)) BETWEEN 1 AND 2048),
    ciphertext   BLOB NOT NULL CHECK (length(ciphertext) BETWEEN 1 AND 8192),
    kek_material TEXT CHECK (length(CAST(kek_material AS BLOB)) <= 256),
    PRIMARY KEY (key_id, kms, kek)
) STRICT;

-- Lists by KEK: what a KEK wraps.
CREATE INDEX encx_wrapped_keys_kek ON encx_wrapped_keys (kms, kek, key_id);

-- SQLite knows no users, so it does not say who. No reference to the keys: what happened to one outlives it.
CREATE TABLE encx_audit_log (
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    at         INTEGER NOT NULL,
    key_id     BLOB NOT NULL,
    scope      BLOB NOT NULL,
    what       TEXT NOT NULL CHECK (what IN ('added', 'state', 'wraps')),
    from_state TEXT,
    to_state   TEXT NOT NULL,
    reason     TEXT
) STRICT;

CREATE INDEX encx_audit_log_key ON encx_audit_log (key_id, seq);
