//! Checks for excess rights of the database's role, and for other users' access to a SQLite file.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::Result;
use encx_config::Settings;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{PgPool, Row as _};

use crate::doctor::database::read_postgres;
use crate::doctor::finding::{Check, Code};

/// Rights that a service needs on each table, as this program's README grants them.
const NEEDED: [(&str, &[&str]); 4] = [
    ("audit_log", &["SELECT", "INSERT"]),
    ("data_keys", &["SELECT", "INSERT", "UPDATE"]),
    ("migrations", &["SELECT"]),
    ("wrapped_keys", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
];

/// Rights on the other tables: leases, jobs, processes and counts.
const SHARED_WORK: &[&str] = &["SELECT", "INSERT", "UPDATE", "DELETE"];

const ATTRIBUTES: &str = "
    SELECT rolname::text AS name, rolsuper AS superuser,
           array_remove(ARRAY[
               CASE WHEN rolcreaterole THEN 'CREATEROLE' END, CASE WHEN rolcreatedb THEN 'CREATEDB' END,
               CASE WHEN rolreplication THEN 'REPLICATION' END, CASE WHEN rolbypassrls THEN 'BYPASSRLS' END], NULL)
           || ARRAY(
               SELECT p.rolname::text FROM pg_roles p
               WHERE p.rolname IN ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files',
                                   'pg_write_all_data')
                 AND pg_has_role(current_user, p.oid, 'MEMBER')
               ORDER BY p.rolname) AS attributes
    FROM pg_roles WHERE rolname = current_user";

/// The schema and tables that the role owns, directly or as a member of the owning role.
const OWNED: &str = "
    SELECT 'schema encx' AS name FROM pg_namespace
    WHERE nspname = 'encx' AND pg_has_role(current_user, nspowner, 'MEMBER')
    UNION ALL
    SELECT 'encx.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'encx' AND c.relkind IN ('r', 'p') AND pg_has_role(current_user, c.relowner, 'MEMBER')
    ORDER BY 1";

const RIGHTS: &str = "
    SELECT c.relname::text AS of, p.privilege AS privilege
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE'), ('TRUNCATE'), ('TRIGGER'), ('REFERENCES')) p (privilege)
    WHERE n.nspname = 'encx' AND c.relkind IN ('r', 'p')
      AND (has_table_privilege(c.oid, p.privilege)
           OR p.privilege IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege(c.oid, p.privilege))
    UNION ALL
    SELECT 'schema', 'CREATE' FROM pg_namespace WHERE nspname = 'encx' AND has_schema_privilege(oid, 'CREATE')
    ORDER BY 1, 2";

pub(crate) async fn postgres(pool: &PgPool, found: &mut Check) -> Result<()> {
    let mut role = "the role".to_owned();
    for row in read_postgres(pool, ATTRIBUTES).await? {
        role = format!("role {}", row.try_get::<String, _>("name")?);
        if row.try_get("superuser")? {
            found.warning(
                Code::RoleSuperuser,
                role,
                "it is a superuser: what has its password may change keys, their states and the audit log, and read files of the server",
                "give the service a role of its own with the rights that the README of encx-cli lists",
            );
            // A superuser has every right.
            return Ok(());
        }
        let attributes: Vec<String> = row.try_get("attributes")?;
        if !attributes.is_empty() {
            found.warning(
                Code::RoleAttributes,
                role.clone(),
                format!("it has {}, which encx does not need", attributes.join(", ")),
                "take that away with ALTER ROLE or REVOKE",
            );
        }
    }
    let owned: Vec<String> = read_postgres(pool, OWNED)
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    if let Some(first) = owned.first() {
        found.warning(
            Code::RoleOwnsTables,
            role,
            format!(
                "it owns {first}{}: it may change the audit log and drop keys",
                more(owned.len())
            ),
            "let another role own schema encx and run `encx migrate`, and grant this one what the README of encx-cli lists",
        );
        // An owner has every right on its tables.
        return Ok(());
    }
    let mut held: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in read_postgres(pool, RIGHTS).await? {
        held.entry(row.try_get("of")?)
            .or_default()
            .push(row.try_get("privilege")?);
    }
    judge(&role, &held, found);
    Ok(())
}

fn more(count: usize) -> String {
    match count {
        ..=1 => String::new(),
        count => format!(" and {} more", count - 1),
    }
}

/// Compares the rights on each table with those needed.
fn judge(role: &str, held: &BTreeMap<String, Vec<String>>, found: &mut Check) {
    let (mut on_audit, mut others) = (Vec::new(), Vec::new());
    for (table, privileges) in held {
        let needed = match NEEDED.iter().find(|(name, _)| name == table) {
            Some((_, needed)) => needed,
            None if table == "schema" => &[][..],
            None => SHARED_WORK,
        };
        for privilege in privileges.iter().filter(|held| !needed.contains(&held.as_str())) {
            match table.as_str() {
                "audit_log" => on_audit.push(privilege.clone()),
                "schema" => others.push(format!("{privilege} on schema encx")),
                _ => others.push(format!("{privilege} on encx.{table}")),
            }
        }
    }
    if !on_audit.is_empty() {
        let rights = on_audit.join(", ");
        found.warning(
            Code::RoleMayEditAudit,
            role,
            format!(
                "it has {rights} on encx.audit_log: a client that logs in as this role can change or erase entries"
            ),
            format!("`REVOKE {rights} ON encx.audit_log FROM ..`"),
        );
    }
    if !others.is_empty() {
        found.warning(
            Code::RoleExcessRights,
            role,
            format!("it has rights that encx does not need: {}", others.join(", ")),
            "REVOKE them: the README of encx-cli lists what a service needs",
        );
    }
}

/// Checks which users may open the file.
pub(crate) async fn sqlite(settings: &Settings, found: &mut Check) -> Result<()> {
    let Some(url) = settings.key_store_url() else {
        return Ok(());
    };
    let options = SqliteConnectOptions::from_str(url.expose())?;
    let path = options.get_filename();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let Ok(metadata) = tokio::fs::metadata(path).await else {
            found.not_checked("who may read the database's file: it is no file");
            return Ok(());
        };
        let (subject, mode) = (path.display().to_string(), metadata.permissions().mode());
        let remedy =
            format!("`chmod o= {subject}`, and the same of the files beside it that end in -wal and -shm");
        if mode & 0o002 != 0 {
            let what =
                "every user of this machine may write it: they decide which keys exist and in what state";
            found.error(Code::DatabaseFileWritable, subject, what, remedy);
        } else if mode & 0o004 != 0 {
            let what =
                "every user of this machine may read it: wrapped keys, contexts, and what else is in it";
            found.warning(Code::DatabaseFileReadable, subject, what, remedy);
        }
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        found.not_checked("who may read the database's file: this system has no such permissions");
    }
    Ok(())
}
