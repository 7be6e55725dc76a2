-- Data keys, their wraps, and who changed them. Runs in one transaction with the others.

-- A schema that an administrator made needs no right to create one.
DO $$ BEGIN
    IF to_regnamespace('encx') IS NULL THEN
        CREATE SCHEMA encx;
    END IF;
END $$;

CREATE TABLE encx.migrations (
    version    integer PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE encx.data_keys (
    -- A UUID of version 7, in the variant that has versions.
    id             uuid PRIMARY KEY CHECK (
                       get_byte(uuid_send(id), 6) >> 4 = 7 AND get_byte(uuid_send(id), 8) >> 6 = 2),
    scope          bytea NOT NULL CHECK (octet_length(scope) = 32),
    usage          smallint NOT NULL CHECK (usage BETWEEN 1 AND 255),
    version        integer NOT NULL CHECK (version >= 1),
    state          text NOT NULL CHECK (
                       state IN ('pre-active', 'active', 'deactivated', 'suspended', 'compromised', 'destroyed')),
    suspended_from text CHECK (suspended_from IN ('pre-active', 'active', 'deactivated')),
    context        jsonb NOT NULL CHECK (jsonb_typeof(context) = 'object'),
    key_check      bytea NOT NULL CHECK (octet_length(key_check) = 32),
    revision       bigint NOT NULL CHECK (revision >= 1),
    created_at     timestamptz NOT NULL,
    activated_at   timestamptz,
    deactivated_at timestamptz,
    destroyed_at   timestamptz,
    changed_at     timestamptz NOT NULL,
    UNIQUE (scope, version),
    CHECK ((state = 'suspended') = (suspended_from IS NOT NULL)),
    CHECK ((state = 'destroyed') = (destroyed_at IS NOT NULL)),
    CHECK (state <> 'active' OR activated_at IS NOT NULL)
);

-- Two active versions of one scope cannot exist.
CREATE UNIQUE INDEX data_keys_active ON encx.data_keys (scope) WHERE state = 'active';
-- The poll for changes.
CREATE INDEX data_keys_changed ON encx.data_keys (changed_at, id);
-- Lists by usage and state; the time lets the index alone tell which keys became active before a moment.
CREATE INDEX data_keys_listed ON encx.data_keys (usage, state, id) INCLUDE (activated_at);

CREATE TABLE encx.wrapped_keys (
    key_id       uuid NOT NULL REFERENCES encx.data_keys (id),
    kms          text NOT NULL CHECK (octet_length(kms) BETWEEN 1 AND 64),
    kek          text NOT NULL CHECK (octet_length(kek) BETWEEN 1 AND 2048),
    ciphertext   bytea NOT NULL CHECK (octet_length(ciphertext) BETWEEN 1 AND 8192),
    kek_material text CHECK (octet_length(kek_material) <= 256),
    PRIMARY KEY (key_id, kms, kek)
);

-- Lists by KEK: what a KEK wraps.
CREATE INDEX wrapped_keys_kek ON encx.wrapped_keys (kms, kek, key_id);

-- No reference to `data_keys`: what happened to a key outlives its row.
CREATE TABLE encx.audit_log (
    seq         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL,
    db_user     text NOT NULL DEFAULT session_user,
    application text NOT NULL DEFAULT current_setting('application_name'),
    key_id      uuid NOT NULL,
    scope       bytea NOT NULL,
    what        text NOT NULL CHECK (what IN ('added', 'state', 'wraps')),
    from_state  text,
    to_state    text NOT NULL,
    reason      text
);

CREATE INDEX audit_log_key ON encx.audit_log (key_id, seq);
