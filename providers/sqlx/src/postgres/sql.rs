//! All statements of the PostgreSQL store, except migrations.

pub(super) mod shared_work;

/// The columns of a record: keys joined with their wraps.
macro_rules! select_from {
    ($keys:literal) => {
        concat!(
            "SELECT k.id, k.scope, k.usage, k.version, k.state, k.suspended_from, k.context::text AS context, ",
            "k.key_check, k.revision, k.created_at, k.activated_at, k.deactivated_at, k.destroyed_at, ",
            "k.changed_at, w.kms, w.kek, w.ciphertext, w.kek_material FROM ",
            $keys,
            " k LEFT JOIN encx.wrapped_keys w ON w.key_id = k.id"
        )
    };
}

pub(super) const LOAD: &str = concat!(
    select_from!("encx.data_keys"),
    " WHERE k.scope = ANY($1) ORDER BY k.scope, k.version, k.id"
);

pub(super) const GET: &str = concat!(
    select_from!("encx.data_keys"),
    " WHERE k.id = ANY($1) ORDER BY k.id"
);

/// $1 after, $2 limit, $3 activated before.
pub(super) const PAGE: &str = concat!(
    select_from!(
        "(SELECT * FROM encx.data_keys
          WHERE id > $1 AND ($3::timestamptz IS NULL OR activated_at < $3)
          ORDER BY id LIMIT $2)"
    ),
    " ORDER BY k.id"
);

/// Reads the first ids of every usage and state from the index, and merges them. The index alone answers this, so rare
/// states are found without walking through frequent ones. The conditions are ranges, because with equality the planner
/// may walk along the primary key instead: where nearly all keys have one usage and state, it expects every key to
/// match, and scans to the end of the table for others that do not exist.
///
/// $1 after, $2 limit, $3 activated before, $4 states, $5 usages, without duplicates.
pub(super) const PAGE_OF_STATES: &str = concat!(
    select_from!(
        "(SELECT d.* FROM (
              SELECT f.id FROM unnest($4::text[]) AS s (state)
              CROSS JOIN unnest($5::smallint[]) AS u (usage)
              CROSS JOIN LATERAL (
                  SELECT id FROM encx.data_keys
                  WHERE (usage, state, id) > (u.usage, s.state, $1)
                    AND (usage, state, id) <= (u.usage, s.state, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
                    AND ($3::timestamptz IS NULL OR activated_at < $3)
                  ORDER BY usage, state, id LIMIT $2) f
              ORDER BY f.id LIMIT $2) m
          CROSS JOIN LATERAL (SELECT * FROM encx.data_keys WHERE id = m.id LIMIT 1) d)"
    ),
    " ORDER BY k.id"
);

/// Walks the KEK's wraps in the order of ids. The inner limit keeps the planner from joining whole tables.
///
/// $1 after, $2 limit, $3 activated before, $4 states, $5 usages, $6 KMS, $7 KEK.
pub(super) const PAGE_OF_KEK: &str = concat!(
    select_from!(
        "(SELECT d.* FROM encx.wrapped_keys b CROSS JOIN LATERAL (
              SELECT * FROM encx.data_keys
              WHERE id = b.key_id AND ($3::timestamptz IS NULL OR activated_at < $3)
                AND state = ANY($4::text[]) AND usage = ANY($5::smallint[])
              LIMIT 1) d
          WHERE b.kms = $6 AND b.kek = $7 AND b.key_id > $1
          ORDER BY b.key_id LIMIT $2)"
    ),
    " ORDER BY k.id"
);

/// Planned for the given pairs: the index finds all keys with rare pairs, and frequent pairs are found early along the
/// primary key.
///
/// $1 after, $2 limit, $3 activated before, $4 states, $5 usages, $6 context, $7 KMS, $8 KEK or null.
pub(super) const PAGE_OF_CONTEXT: &str = concat!(
    select_from!(
        "(SELECT d.* FROM encx.data_keys d
          WHERE d.context @> $6::jsonb AND d.id > $1
            AND ($3::timestamptz IS NULL OR d.activated_at < $3)
            AND d.state = ANY($4::text[]) AND d.usage = ANY($5::smallint[])
            AND ($8::text IS NULL OR EXISTS (
                SELECT FROM encx.wrapped_keys b WHERE b.key_id = d.id AND b.kms = $7::text AND b.kek = $8::text))
          ORDER BY d.id LIMIT $2)"
    ),
    " ORDER BY k.id"
);

/// $1 after, $2 limit, $3 activated before, $4 states, $5 usages, $6 scope, $7 KMS, $8 KEK or null, $9 context.
pub(super) const PAGE_OF_SCOPE: &str = concat!(
    select_from!(
        "(SELECT d.* FROM encx.data_keys d
          WHERE d.scope = $6 AND d.id > $1 AND d.context @> $9::jsonb
            AND ($3::timestamptz IS NULL OR d.activated_at < $3)
            AND d.state = ANY($4::text[]) AND d.usage = ANY($5::smallint[])
            AND ($8::text IS NULL OR EXISTS (
                SELECT FROM encx.wrapped_keys b WHERE b.key_id = d.id AND b.kms = $7::text AND b.kek = $8::text))
          ORDER BY d.id LIMIT $2)"
    ),
    " ORDER BY k.id"
);

pub(super) const SUMMARY: &str = "
    SELECT usage, state, count(*) AS versions, min(activated_at) AS first_activated_at
    FROM encx.data_keys GROUP BY usage, state";

/// A key's wraps are adjacent in the primary key, so each is counted beside the others.
pub(super) const KEKS: &str = "
    SELECT kms, kek, count(*) AS versions, count(*) FILTER (WHERE wraps = 1) AS sole
    FROM (SELECT kms, kek, count(*) OVER (PARTITION BY key_id) AS wraps FROM encx.wrapped_keys) w
    GROUP BY kms, kek";

/// The columns of an audit log entry.
macro_rules! select_audit {
    ($filter:literal) => {
        concat!(
            "SELECT seq, at, db_user, application, key_id, scope, what, from_state, to_state, reason FROM encx.audit_log \
             WHERE seq > $1 AND ($3::timestamptz IS NULL OR at >= $3) AND ($4::timestamptz IS NULL OR at < $4)",
            $filter,
            " ORDER BY seq LIMIT $2"
        )
    };
}

/// $1 after, $2 limit, $3 since, $4 until.
pub(super) const AUDIT_PAGE: &str = select_audit!("");

/// Like [`AUDIT_PAGE`]. $5 scope.
pub(super) const AUDIT_PAGE_OF_SCOPE: &str = select_audit!(" AND scope = $5");

/// Like [`AUDIT_PAGE`]. $5 scope or null, $6 key.
pub(super) const AUDIT_PAGE_OF_KEY: &str =
    select_audit!(" AND ($5::bytea IS NULL OR scope = $5) AND key_id = $6");

/// The time is from before the statement's snapshot: the snapshot contains everything committed by then.
pub(super) const CHANGES: &str = "
    SELECT n.now, k.id, k.scope, k.state, k.revision, k.changed_at
    FROM (SELECT statement_timestamp() AS now) n
    LEFT JOIN LATERAL (
        SELECT id, scope, state, revision, changed_at FROM encx.data_keys
        WHERE (changed_at, id) > ($1, $2)
        ORDER BY changed_at, id LIMIT $3) k ON true
    ORDER BY k.changed_at, k.id";

pub(super) const NOW: &str = "SELECT statement_timestamp()";

/// Overrides the connection's defaults: planning must see what others have committed since.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE";

/// Works on a read-only database too.
pub(super) const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL READ COMMITTED, READ ONLY";

pub(super) const COMMIT: &str = "COMMIT";

pub(super) const ROLLBACK: &str = "ROLLBACK";

/// $1 statement, $2 lock, $3 idle, as durations. Losing a data key in a crash loses its data, so a commit is never
/// asynchronous here.
pub(super) const SET_LIMITS: &str = "
    SELECT set_config('statement_timeout', $1, true), set_config('lock_timeout', $2, true),
           set_config('idle_in_transaction_session_timeout', $3, true),
           set_config('synchronous_commit',
               replace(current_setting('synchronous_commit'), 'off', 'on'), true)";

/// Locks a scope, even one without rows. The lock's number is derived from the scope's hash.
pub(super) const LOCK_SCOPE: &str = "SELECT pg_advisory_xact_lock($1)";

/// Blocks writers of these rows that do not take the scope's lock, such as a replacement of wraps. Versions and ids
/// grow together. The rows are read afterwards in a separate statement: this statement's snapshot would have the wraps
/// from before the wait.
pub(super) const LOCK_ROWS: &str =
    "SELECT id FROM encx.data_keys WHERE scope = $1 ORDER BY version FOR UPDATE";

/// $1 ids. In the order of ids, like every write, so that writes do not deadlock.
pub(super) const LOCK_KEYS: &str = "SELECT id FROM encx.data_keys WHERE id = ANY($1) ORDER BY id FOR UPDATE";

/// Skips keys that another transaction has locked.
pub(super) const LOCK_FREE_KEYS: &str =
    "SELECT id FROM encx.data_keys WHERE id = ANY($1) ORDER BY id FOR UPDATE SKIP LOCKED";

/// Later than every time already in a row, even if the clock was set back. Rows an hour or more ahead are ignored: no
/// clock wrote them.
pub(super) const WRITE_TIME: &str = "
    SELECT greatest(clock_timestamp(), (
        SELECT max(changed_at) FROM encx.data_keys
        WHERE changed_at < statement_timestamp() + interval '1 hour') + interval '1 microsecond')";

pub(super) const INSERT_KEY: &str = "
    INSERT INTO encx.data_keys (id, scope, usage, version, state, suspended_from, context, key_check, revision,
        created_at, activated_at, deactivated_at, destroyed_at, changed_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9, $10, $11, $12, $13, $14)";

/// $1 id, $2 its current revision; it gets the next one.
pub(super) const UPDATE_KEY: &str = "
    UPDATE encx.data_keys
    SET revision = $3, state = $4, suspended_from = $5, activated_at = $6, deactivated_at = $7, destroyed_at = $8,
        changed_at = $9
    WHERE id = $1 AND revision = $2";

/// $1 ids, $2 their current revisions, $3 their new ones, $4 the time.
pub(super) const TOUCH_KEYS: &str = "
    UPDATE encx.data_keys k SET revision = n.revision, changed_at = $4
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS n (id, before, revision)
    WHERE k.id = n.id AND k.revision = n.before";

/// For keys with one wrap before and after: cheaper than inserting a row, whose foreign key would be checked.
pub(super) const REPLACE_ONLY_WRAPS: &str = "
    UPDATE encx.wrapped_keys w
    SET kms = n.kms, kek = n.kek, ciphertext = n.ciphertext, kek_material = n.kek_material
    FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::text[])
        AS n (key_id, kms, kek, ciphertext, kek_material)
    WHERE w.key_id = n.key_id";

pub(super) const DELETE_WRAPS_OF: &str = "DELETE FROM encx.wrapped_keys WHERE key_id = ANY($1)";

pub(super) const INSERT_WRAPS_OF: &str = "
    INSERT INTO encx.wrapped_keys (key_id, kms, kek, ciphertext, kek_material)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $5::text[])";

pub(super) const DELETE_WRAPS: &str = "DELETE FROM encx.wrapped_keys WHERE key_id = $1";

pub(super) const INSERT_WRAPS: &str = "
    INSERT INTO encx.wrapped_keys (key_id, kms, kek, ciphertext, kek_material)
    SELECT $1, w.* FROM unnest($2::text[], $3::text[], $4::bytea[], $5::text[]) AS w";

pub(super) const INSERT_AUDIT: &str = "
    INSERT INTO encx.audit_log (at, key_id, scope, what, from_state, to_state, reason)
    VALUES ($1, $2, $3, $4, $5, $6, $7)";

/// $1 the time, $2 ids, $3 scopes, $4 states, $5 reasons.
pub(super) const AUDIT_WRAPS: &str = "
    INSERT INTO encx.audit_log (at, key_id, scope, what, from_state, to_state, reason)
    SELECT $1, n.id, n.scope, 'wraps', n.state, n.state, n.reason
    FROM unnest($2::uuid[], $3::bytea[], $4::text[], $5::text[]) AS n (id, scope, state, reason)";

/// $1 channel, $2 payload. Delivered when the transaction commits.
pub(super) const NOTIFY: &str = "SELECT pg_notify($1, $2)";

/// Tells whether this session listens.
pub(super) const LISTENS: &str = "SELECT 'encx_keys' IN (SELECT pg_listening_channels())";

/// Tells whether a write is still recent enough to commit. $1 its time, $2 microseconds.
pub(super) const IN_TIME: &str = "SELECT clock_timestamp() < $1 + $2 * interval '1 microsecond'";

/// Reads the catalogue directly. `to_regclass` uses a session cache, which waiting for an advisory lock does not
/// refresh: after the wait it would miss the tables that the holder of the lock has made. Reading the catalogue's
/// tables locks them, and that refreshes the cache for the following statements too.
pub(super) const HAS_MIGRATIONS: &str = "
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'encx' AND c.relname = 'migrations' AND c.relkind = 'r')";

/// The last migration that has run. Version 1 of the tables records nothing more.
pub(super) const LAST_MIGRATION: &str = "SELECT coalesce(max(version), 0)::bigint FROM encx.migrations";

/// The oldest version whose library works with the tables, when they are newer than ours.
pub(super) const COMPATIBLE_FROM: &str = "
    SELECT coalesce(compatible_from, version)::bigint FROM encx.migrations ORDER BY version DESC LIMIT 1";

pub(super) const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock($1)";

pub(super) const RECORD_MIGRATION: &str = "INSERT INTO encx.migrations (version) VALUES ($1)";

/// $1 the last migration, $2 the oldest version whose library works with its tables.
pub(super) const RECORD_COMPATIBLE: &str =
    "UPDATE encx.migrations SET compatible_from = $2 WHERE version = $1";
