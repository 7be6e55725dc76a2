//! Compares this machine's clock with the database, the KMSs and the times in rows.

use std::time::Duration;

use anyhow::Result;
use encx::kms::{KekRef, RequestCounter};
use encx_config::OpenKms;
use sqlx::{Executor as _, Row as _};

use crate::doctor::database::{Database, Sql};
use crate::doctor::finding::{Check, Code, Severity};
use crate::exit::describe;
use crate::keks;
use crate::record::now;

/// From here, a difference is a warning.
const WARN: Duration = Duration::from_secs(30);
/// From here, AWS refuses requests that this machine signs.
const REFUSED: Duration = Duration::from_secs(300);

const DATABASE_NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
const NEWEST_CHANGE: Sql = Sql {
    postgres: "SELECT (extract(epoch FROM max(changed_at)) * 1000000)::bigint FROM encx.data_keys",
    sqlite: "SELECT max(changed_at) FROM encx_data_keys",
};

/// Compares this machine's clock with the database's.
pub(crate) async fn database(database: &Database, has_tables: bool, found: &mut Check) -> Result<()> {
    match database {
        Database::Postgres(pool) => {
            let mut connection = pool.acquire().await?;
            // Connects first, so that the measured query takes one round trip.
            connection.execute(sqlx::raw_sql("SELECT 1")).await?;
            let before = now().as_micros();
            let answer = connection.fetch_one(sqlx::raw_sql(DATABASE_NOW)).await?;
            let at: i64 = answer.try_get(0)?;
            let own = i64::midpoint(before, now().as_micros());
            if let Some((severity, difference)) = judge(own.saturating_sub(at)) {
                found.find(
                    severity,
                    Code::ClockSkewDatabase,
                    "this machine's clock",
                    format!(
                        "it is {difference} the database's: ids of new keys and times that commands compute, as for \
                         --older-than, are off by as much"
                    ),
                    REMEDY,
                );
            }
        }
        // SQLite uses this machine's clock: a time in the future means that the clock was set back.
        Database::Sqlite(_) if has_tables => {
            let newest = database.number(&NEWEST_CHANGE).await?.unwrap_or(i64::MIN);
            let behind = newest.saturating_sub(now().as_micros());
            if let Some((severity, difference)) = judge(behind.max(0).saturating_neg()) {
                found.find(
                    severity,
                    Code::ClockBehindRows,
                    "this machine's clock",
                    format!(
                        "it is {difference} the time of the last change in the key store: it was set back, or was ahead then, and \
                         what is due is known late"
                    ),
                    REMEDY,
                );
            }
        }
        Database::Sqlite(_) => {}
    }
    Ok(())
}

/// Compares this machine's clock with each KMS that reports its time.
pub(crate) async fn all_kms(kms: &OpenKms, keks: &[KekRef], found: &mut Check) {
    for (name, service) in kms.iter() {
        // These run in this process.
        if matches!(service.provider(), "local" | "memory") {
            continue;
        }
        let Some(kek) = keks.iter().find(|kek| kek.kms == *name) else {
            continue;
        };
        let counter = RequestCounter::new();
        let described = counter.during(keks::describe(kms, kek)).await;
        let own = now().as_micros();
        let Some(at) = counter.server_time() else {
            found.not_checked(match described {
                Ok(_) => format!("KMS {name} does not tell the time"),
                Err(failure) => format!("KMS {name}: {}", failure.text),
            });
            continue;
        };
        // KMS answers have whole seconds.
        if let Some((severity, difference)) = judge(own.saturating_sub(at.as_micros())) {
            found.find(
                severity,
                Code::ClockSkewKms,
                format!("this machine's clock, and KMS {name}"),
                format!("it is {difference} the KMS's: AWS refuses requests that were signed 5 minutes early or late"),
                REMEDY,
            );
        }
    }
}

const REMEDY: &str =
    "synchronise the clock, as with chrony or systemd-timesyncd: `timedatectl` shows whether it is";

/// Returns the severity of a difference in microseconds, and describes it; `None` if it is small.
fn judge(ahead: i64) -> Option<(Severity, String)> {
    let off = Duration::from_micros(ahead.unsigned_abs());
    let severity = match off {
        off if off >= REFUSED => Severity::Error,
        off if off >= WARN => Severity::Warning,
        _ => return None,
    };
    let side = if ahead > 0 { "ahead of" } else { "behind" };
    let off = humantime::format_duration(Duration::from_secs(off.as_secs()));
    Some((severity, format!("{off} {side}")))
}

/// Notes that a comparison failed.
pub(crate) fn failed(error: &anyhow::Error, found: &mut Check) {
    found.not_checked(format!("the database's clock: {}", describe(error)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_minute_is_told_and_five_minutes_are_an_error() {
        assert_eq!(judge(29_999_999), None);
        assert_eq!(judge(-29_999_999), None);
        assert_eq!(
            judge(30_000_000),
            Some((Severity::Warning, "30s ahead of".to_owned()))
        );
        assert_eq!(
            judge(-600_400_000),
            Some((Severity::Error, "10m behind".to_owned()))
        );
    }
}
