//! All statements of the SQLite store, except migrations.

pub(super) mod shared_work;

/// The columns of a record: keys joined with their wraps.
macro_rules! select_from {
    ($keys:literal) => {
        concat!(
            "SELECT k.id, k.scope, k.usage, k.version, k.state, k.suspended_from, k.context, k.key_check, ",
            "k.revision, k.created_at, k.activated_at, k.deactivated_at, k.destroyed_at, k.changed_at, ",
            "w.kms, w.kek, w.ciphertext, w.kek_material FROM ",
            $keys,
            " k LEFT JOIN encx_wrapped_keys w ON w.key_id = k.id"
        )
    };
}

/// ?1 a JSON array of scopes in hex.
pub(super) const LOAD: &str = concat!(
    select_from!("encx_data_keys"),
    " WHERE k.scope IN (SELECT unhex(value) FROM json_each(?1)) ORDER BY k.scope, k.version, k.id"
);

/// ?1 a JSON array of ids in hex.
pub(super) const GET: &str = concat!(
    select_from!("encx_data_keys"),
    " WHERE k.id IN (SELECT unhex(value) FROM json_each(?1)) ORDER BY k.id"
);

// Common to all pages: ?1 after, ?2 limit, ?3 activated before, ?4 states, ?5 usages, ?6 scope, ?7 KMS, ?8 KEK, ?9
// context, ?10 the number of its pairs.

pub(super) const PAGE: &str = concat!(
    select_from!(
        "(SELECT * FROM encx_data_keys
          WHERE id > ?1 AND (?3 IS NULL OR activated_at < ?3)
          ORDER BY id LIMIT ?2)"
    ),
    " ORDER BY k.id"
);

pub(super) const PAGE_OF_STATES: &str = concat!(
    select_from!(
        "(SELECT * FROM encx_data_keys INDEXED BY encx_data_keys_listed
          WHERE usage IN (SELECT value FROM json_each(?5)) AND state IN (SELECT value FROM json_each(?4))
            AND id > ?1 AND (?3 IS NULL OR activated_at < ?3)
          ORDER BY id LIMIT ?2)"
    ),
    " ORDER BY k.id"
);

pub(super) const PAGE_OF_KEK: &str = concat!(
    select_from!(
        "(SELECT d.* FROM encx_wrapped_keys b CROSS JOIN encx_data_keys d ON d.id = b.key_id
          WHERE b.kms = ?7 AND b.kek = ?8 AND b.key_id > ?1
            AND d.usage IN (SELECT value FROM json_each(?5)) AND d.state IN (SELECT value FROM json_each(?4))
            AND (?3 IS NULL OR d.activated_at < ?3)
          ORDER BY b.key_id LIMIT ?2)"
    ),
    " ORDER BY k.id"
);

/// Reads keys in the order of ids, and each key's context, until enough keys have all pairs.
pub(super) const PAGE_OF_CONTEXT: &str = concat!(
    select_from!(
        "(SELECT d.* FROM encx_data_keys d
          WHERE d.id > ?1
            AND d.usage IN (SELECT value FROM json_each(?5)) AND d.state IN (SELECT value FROM json_each(?4))
            AND (?3 IS NULL OR d.activated_at < ?3)
            AND (SELECT count(*) FROM json_each(d.context) c
                 WHERE (c.key, c.value) IN (SELECT key, value FROM json_each(?9))) = ?10
            AND (?8 IS NULL OR EXISTS (
                SELECT 1 FROM encx_wrapped_keys b WHERE b.key_id = d.id AND b.kms = ?7 AND b.kek = ?8))
          ORDER BY d.id LIMIT ?2)"
    ),
    " ORDER BY k.id"
);

pub(super) const PAGE_OF_SCOPE: &str = concat!(
    select_from!(
        "(SELECT d.* FROM encx_data_keys d
          WHERE d.scope = ?6 AND d.id > ?1
            AND (SELECT count(*) FROM json_each(d.context) c
                 WHERE (c.key, c.value) IN (SELECT key, value FROM json_each(?9))) = ?10
            AND d.usage IN (SELECT value FROM json_each(?5)) AND d.state IN (SELECT value FROM json_each(?4))
            AND (?3 IS NULL OR d.activated_at < ?3)
            AND (?8 IS NULL OR EXISTS (
                SELECT 1 FROM encx_wrapped_keys b WHERE b.key_id = d.id AND b.kms = ?7 AND b.kek = ?8))
          ORDER BY d.id LIMIT ?2)"
    ),
    " ORDER BY k.id"
);

pub(super) const SUMMARY: &str = "
    SELECT usage, state, count(*) AS versions, min(activated_at) AS first_activated_at
    FROM encx_data_keys GROUP BY usage, state";

pub(super) const KEKS: &str = "
    SELECT w.kms, w.kek, count(*) AS versions, sum(NOT EXISTS (
        SELECT 1 FROM encx_wrapped_keys o
        WHERE o.key_id = w.key_id AND (o.kms, o.kek) <> (w.kms, w.kek))) AS sole
    FROM encx_wrapped_keys w GROUP BY w.kms, w.kek";

/// The columns of an audit log entry.
macro_rules! select_audit {
    ($filter:literal) => {
        concat!(
            "SELECT seq, at, NULL AS db_user, application, key_id, scope, what, from_state, to_state, reason FROM encx_audit_log \
             WHERE seq > ?1 AND (?3 IS NULL OR at >= ?3) AND (?4 IS NULL OR at < ?4)",
            $filter,
            " ORDER BY seq LIMIT ?2"
        )
    };
}

/// ?1 after, ?2 limit, ?3 since, ?4 until.
pub(super) const AUDIT_PAGE: &str = select_audit!("");

/// Like [`AUDIT_PAGE`]. ?5 scope.
pub(super) const AUDIT_PAGE_OF_SCOPE: &str = select_audit!(" AND scope = ?5");

/// Like [`AUDIT_PAGE`]. ?5 scope or null, ?6 key.
pub(super) const AUDIT_PAGE_OF_KEY: &str = select_audit!(" AND (?5 IS NULL OR scope = ?5) AND key_id = ?6");

/// One statement, so that the last time and the rows are consistent. There is a row even if nothing changed.
///
/// ?1 from, ?2 after, ?3 limit, ?4 now.
pub(super) const CHANGES: &str = "
    SELECT l.last, k.id, k.scope, k.state, k.revision, k.changed_at
    FROM (SELECT coalesce(max(changed_at), 0) AS last FROM encx_data_keys WHERE changed_at <= ?4) l
    LEFT JOIN (
        SELECT id, scope, state, revision, changed_at FROM encx_data_keys
        WHERE (changed_at, id) > (?1, ?2)
        ORDER BY changed_at, id LIMIT ?3) k ON true
    ORDER BY k.changed_at, k.id";

/// ?1 the latest time that counts.
pub(super) const LAST_CHANGE: &str =
    "SELECT coalesce(max(changed_at), 0) FROM encx_data_keys WHERE changed_at <= ?1";

/// The path of the database's file. Empty if it is in memory, or a temporary file that only its connection sees.
pub(super) const FILE: &str = "SELECT file FROM pragma_database_list WHERE name = 'main'";

/// Takes the write lock immediately: no other writer can write between this transaction's reads and writes.
pub const BEGIN: &str = "BEGIN IMMEDIATE";

pub(super) const NOW: &str = "SELECT CAST(unixepoch('now', 'subsec') * 1000000 AS INTEGER)";

pub(super) const INSERT_KEY: &str = "
    INSERT INTO encx_data_keys (id, scope, usage, version, state, suspended_from, context, key_check, revision,
        created_at, activated_at, deactivated_at, destroyed_at, changed_at)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

/// ?1 id, ?2 its current revision; it gets the next one.
pub(super) const UPDATE_KEY: &str = "
    UPDATE encx_data_keys
    SET revision = ?3, state = ?4, suspended_from = ?5, activated_at = ?6, deactivated_at = ?7, destroyed_at = ?8,
        changed_at = ?9
    WHERE id = ?1 AND revision = ?2";

pub(super) const DELETE_WRAPS: &str = "DELETE FROM encx_wrapped_keys WHERE key_id = ?1";

pub(super) const INSERT_WRAP: &str = "
    INSERT INTO encx_wrapped_keys (key_id, kms, kek, ciphertext, kek_material) VALUES (?1, ?2, ?3, ?4, ?5)";

pub(super) const INSERT_AUDIT: &str = "
    INSERT INTO encx_audit_log (at, key_id, scope, what, from_state, to_state, reason, application)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";

pub(super) const HAS_MIGRATIONS: &str =
    "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'encx_migrations')";

/// The last migration that has run. Version 1 of the tables records nothing more.
pub(super) const LAST_MIGRATION: &str = "SELECT coalesce(max(version), 0) FROM encx_migrations";

/// The oldest version whose library works with the tables, when they are newer than ours.
pub(super) const COMPATIBLE_FROM: &str = "
    SELECT coalesce(compatible_from, version) FROM encx_migrations ORDER BY version DESC LIMIT 1";

pub(super) const RECORD_MIGRATION: &str = "INSERT INTO encx_migrations (version) VALUES (?1)";

/// ?1 the last migration, ?2 the oldest version whose library works with its tables.
pub(super) const RECORD_COMPATIBLE: &str =
    "UPDATE encx_migrations SET compatible_from = ?2 WHERE version = ?1";
