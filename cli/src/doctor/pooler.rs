//! Checks whether a transaction pooler is in front of PostgreSQL, and whether the settings declare it.

use std::time::Duration;

use anyhow::Result;
use encx_config::Settings;
use sqlx::{Connection as _, PgConnection};

use crate::doctor::database::postgres_options;
use crate::doctor::finding::{Check, Code};
use crate::exit::describe;

/// Time limit of the probe: a small pooler may have no connection left.
const PATIENCE: Duration = Duration::from_secs(3);

/// Number of attempts: a pooler may return the same server connection twice.
const LOOKS: u32 = 3;

pub(crate) async fn check(settings: &Settings, found: &mut Check) -> Result<()> {
    let Some(url) = settings.key_store_url() else {
        return Ok(());
    };
    let mut pooled = is_pooled(url.expose()).await?;
    if pooled.is_none() {
        found
            .not_checked("whether a pooler stands before the database: it gave no second connection in time");
    }
    if settings.transaction_pooler() {
        // The probe does not detect every pooler.
        pooled = Some(true);
    } else if pooled == Some(true) && !url.expose().contains("statement-cache-capacity=0") {
        found.error(
            Code::PoolerNotDeclared,
            "ENCX_KEY_STORE",
            "a transaction pooler stands before the database, and prepared statements fail there at random",
            "set `transaction_pooler` (ENCX_KEY_STORE_TRANSACTION_POOLER) to true",
        );
    }
    let (subject, what) = match settings.listen_url() {
        None if pooled == Some(true) => (
            "ENCX_KEY_STORE",
            "a transaction pooler passes no notifications on: processes see a suspended or rotated key only within `state_ttl`"
                .to_owned(),
        ),
        None => return Ok(()),
        Some(listen) => match is_pooled(listen.expose()).await {
            Ok(Some(true)) => (
                "ENCX_LISTEN_URL",
                "it leads to a transaction pooler, which passes no notifications on".to_owned(),
            ),
            Ok(_) => return Ok(()),
            Err(error) => (
                "ENCX_LISTEN_URL",
                format!(
                    "nothing can listen there, so processes see a suspended or rotated key only within `state_ttl`: {}",
                    describe(&error)
                ),
            ),
        },
    };
    found.warning(
        Code::HintsDoNotArrive,
        subject,
        what,
        "set `listen_url` (ENCX_LISTEN_URL) to a URL that leads to the server itself",
    );
    Ok(())
}

/// Tells whether one connection's transactions run on several server connections. Behind a pooler, two clients with
/// open transactions use different ones. `None` if the probe timed out.
async fn is_pooled(url: &str) -> Result<Option<bool>> {
    let options = postgres_options(url)?;
    let mut one = PgConnection::connect_with(&options).await?;
    let mut other = PgConnection::connect_with(&options).await?;
    let look = async {
        let own = backend(&mut one).await?;
        for _ in 0..LOOKS {
            let mut held = other.begin().await?;
            // This transaction may now hold the first client's server connection.
            backend(&mut held).await?;
            let again = backend(&mut one).await?;
            held.rollback().await?;
            if again != own {
                return anyhow::Ok(true);
            }
        }
        Ok(false)
    };
    Ok(match tokio::time::timeout(PATIENCE, look).await {
        Ok(looked) => Some(looked?),
        Err(_) => None,
    })
}

/// Returns the server process's id. Uses the simple protocol, which every pooler supports.
async fn backend(connection: &mut PgConnection) -> Result<i32> {
    use sqlx::{Executor as _, Row as _};
    let row = connection
        .fetch_one(sqlx::raw_sql("SELECT pg_backend_pid()"))
        .await?;
    Ok(row.try_get(0)?)
}
