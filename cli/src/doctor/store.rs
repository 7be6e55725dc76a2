//! Checks the key store's tables and server: schema version, primary, durability, and replication lag.

use anyhow::Result;
use encx::store::StoreError;
use encx_config::{ConfigError, OpenStore};
use sqlx::{PgPool, Row as _};

use crate::doctor::database::{Database, Sql, read_postgres};
use crate::doctor::finding::{Check, Code};
use crate::exit::describe;

/// The oldest server that encx-sqlx is tested with.
const OLDEST_POSTGRES: i64 = 130_000;

/// Replication lag from which a standby is a finding.
const LAG_SECONDS: f64 = 60.0;

const SERVER: &str = "
    SELECT current_setting('server_version_num')::bigint AS version, current_setting('server_version') AS version_name,
           pg_is_in_recovery() AS standby, current_setting('fsync') AS fsync,
           current_setting('full_page_writes') AS full_page_writes";

/// The state is hidden from roles that may not see other roles' statistics.
const STANDBYS: &str = "
    SELECT coalesce(nullif(application_name, ''), client_addr::text, 'standby') AS name, state IS NULL AS hidden,
           coalesce(extract(epoch FROM replay_lag), 0)::float8 AS lag
    FROM pg_stat_replication";

const INTEGRITY: Sql = Sql {
    postgres: "SELECT NULL::text WHERE false",
    sqlite: "SELECT integrity_check FROM pragma_integrity_check LIMIT 3",
};

/// Checks the schema. Returns whether the tables can be used.
///
/// # Errors
///
/// If the database cannot be reached.
pub(crate) async fn schema(store: &OpenStore, found: &mut Check) -> Result<bool> {
    let steps = match store.migrations().await {
        Ok(steps) => steps,
        Err(error) => {
            return match &error {
                ConfigError::Store {
                    source: StoreError::NotMigrated { found: tables },
                    ..
                } => {
                    found.error(
                        Code::SchemaNewer,
                        "the key store's tables",
                        format!("they are of {tables}"),
                        "install the version of this program that the services have",
                    );
                    Ok(false)
                }
                ConfigError::Store {
                    source: StoreError::Unavailable { .. },
                    ..
                } => Err(error.into()),
                _ => {
                    found.not_checked(format!("the version of its tables: {}", describe(&error.into())));
                    Ok(false)
                }
            };
        }
    };
    let pending: Vec<_> = steps.iter().filter(|step| !step.is_applied).collect();
    let Some(first) = pending.first() else {
        return Ok(true);
    };
    let what = match pending.len() == steps.len() {
        true => "there are none".to_owned(),
        false => format!(
            "{} of {} steps did not run, from {} ({}) on: services of this version refuse them",
            pending.len(),
            steps.len(),
            first.version,
            first.name
        ),
    };
    found.error(
        Code::SchemaBehind,
        "the key store's tables",
        what,
        "`encx migrate run`, or `encx migrate sql` for an administrator",
    );
    Ok(false)
}

/// Checks the server, or with `deep` the SQLite file.
pub(crate) async fn server(database: &Database, deep: bool, found: &mut Check) -> Result<()> {
    match database {
        Database::Postgres(pool) => postgres(pool, found).await,
        Database::Sqlite(_) if deep => sqlite(database, found).await,
        Database::Sqlite(_) => Ok(()),
    }
}

async fn postgres(pool: &PgPool, found: &mut Check) -> Result<()> {
    for row in read_postgres(pool, SERVER).await? {
        let version: i64 = row.try_get("version")?;
        if version < OLDEST_POSTGRES {
            found.error(
                Code::PostgresVersion,
                "the database's server",
                format!(
                    "it is PostgreSQL {}, and encx needs 13 or later",
                    row.try_get::<String, _>("version_name")?
                ),
                "upgrade the server",
            );
        }
        if row.try_get("standby")? {
            found.error(
                Code::NotPrimary,
                "the database's server",
                "it is a standby, which takes no writes: no key can be made or rotated",
                "name the primary in ENCX_KEY_STORE, or promote this server",
            );
        }
        if row.try_get::<String, _>("fsync")? == "off" {
            found.error(
                Code::FsyncOff,
                "the database's server",
                "fsync is off: a crash of its machine may lose keys that were in use, and all that they encrypted",
                "`ALTER SYSTEM SET fsync = on`, then reload",
            );
        }
        if row.try_get::<String, _>("full_page_writes")? == "off" {
            found.warning(
                Code::FullPageWritesOff,
                "the database's server",
                "full_page_writes is off: unless its file system writes pages whole, a crash may damage tables",
                "`ALTER SYSTEM SET full_page_writes = on`, then reload; or --accept full-page-writes-off on such a file system",
            );
        }
    }
    for row in read_postgres(pool, STANDBYS).await? {
        let name: String = row.try_get("name")?;
        if row.try_get("hidden")? {
            found.not_checked(format!(
                "how far {name} is behind: grant this role pg_monitor to see it"
            ));
            continue;
        }
        let lag: f64 = row.try_get("lag")?;
        if is_late(lag) {
            found.warning(
                Code::ReplicaLag,
                format!("standby {name}"),
                format!("it is {lag:.0} seconds behind: if it is promoted, keys of that time are lost with what they encrypted"),
                "find out what holds it up; replicate synchronously if a failover must lose nothing",
            );
        }
    }
    Ok(())
}

fn is_late(lag: f64) -> bool {
    lag > LAG_SECONDS
}

async fn sqlite(database: &Database, found: &mut Check) -> Result<()> {
    let damages = database.texts(&INTEGRITY).await?;
    if damages.iter().any(|text| text != "ok") {
        found.error(
            Code::DatabaseDamaged,
            "the database's file",
            format!("it is damaged: {}", damages.join("; ")),
            "stop what uses it, copy it, and restore a backup",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_behind_is_late() {
        assert!(!is_late(0.0) && !is_late(60.0));
        assert!(is_late(60.5));
    }
}
