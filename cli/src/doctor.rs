//! The checks of `encx doctor`. Each has its own time limit, and a failed check stops no other.

mod chain;
mod clock;
mod columns;
mod configuration;
mod database;
mod finding;
mod keks;
mod pooler;
mod processes;
mod role;
mod rotation;
mod shreddings;
mod store;
mod structure;
mod versions;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use encx::keys::KeyManager;
use encx::store::KeyRecord;

use self::database::Database;
pub(crate) use self::finding::{Check, Code, Finding, count_of};
use self::keks::Troubled;
use self::versions::{Seen, Versions};
use crate::exit::describe;
use crate::session::Session;

/// Time limit of a check. `--deep` lifts it for versions and SQLite files.
const PATIENCE: Duration = Duration::from_secs(15);

/// What to check in addition.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Check all versions instead of a sample.
    pub(crate) deep: bool,
    /// A folder of shredding receipts.
    pub(crate) receipts: Option<PathBuf>,
}

/// Runs all checks.
///
/// # Errors
///
/// If the key store cannot be reached.
pub(crate) async fn examine(session: &Session, options: &Options) -> Result<Vec<Check>> {
    let mut settings = Check::new("settings");
    let has_kms = Box::pin(configuration::check(session, &mut settings)).await?;

    let mut tables = Check::new("key store");
    let has_tables = store::schema(session.open_store().await?, &mut tables).await?;
    let database = match Database::open(&session.settings) {
        Ok(database) => database,
        Err(error) => {
            tables.not_checked(describe(&error));
            None
        }
    };
    if let Some(database) = &database {
        let server = store::server(database, options.deep, &mut tables);
        // A deep check reads a whole SQLite file.
        let checked = match options.deep {
            true => server.await,
            false => in_time(server).await,
        };
        if let Err(error) = checked {
            tables.not_checked(format!("the server: {}", describe(&error)));
        }
    }
    let mut doctor = Doctor {
        session,
        options,
        database,
        has_kms,
        has_tables,
        checks: vec![settings, tables],
    };
    doctor.clock().await;
    doctor.access().await;
    doctor.keys().await;
    Ok(doctor.checks)
}

/// What the checks share.
struct Doctor<'s> {
    session: &'s Session,
    options: &'s Options,
    database: Option<Database>,
    has_kms: bool,
    has_tables: bool,
    checks: Vec<Check>,
}

impl Doctor<'_> {
    async fn clock(&mut self) {
        let mut found = Check::new("clock");
        if let Some(database) = &self.database {
            let compared = clock::database(database, self.has_tables, &mut found);
            let compared = in_time(compared).await;
            if let Err(error) = compared {
                clock::failed(&error, &mut found);
            }
        }
        if self.has_kms {
            let compared = async {
                let named = self.session.named_keks().await?;
                clock::all_kms(self.session.kms().await?, &named, &mut found).await;
                Ok(())
            };
            if let Err(error) = in_time(compared).await {
                found.not_checked(format!("the KMS's clock: {}", describe(&error)));
            }
        }
        self.checks.push(found);
    }

    /// Checks how the database is reached, and the role's rights.
    async fn access(&mut self) {
        let settings = &self.session.settings;
        let Some(database) = &self.database else {
            return;
        };
        if let Database::Postgres(_) = database {
            let mut found = Check::new("pooler");
            bounded(&mut found, async |found| pooler::check(settings, found).await).await;
            self.checks.push(found);
        }
        let mut found = Check::new("database role");
        bounded(&mut found, async |found| match database {
            Database::Postgres(pool) => role::postgres(pool, found).await,
            Database::Sqlite(_) => role::sqlite(settings, found).await,
        })
        .await;
        self.checks.push(found);
    }

    /// Checks KEKs, versions, and what depends on both.
    async fn keys(&mut self) {
        let mut troubled = Troubled::default();
        let mut found = self.begin("KEKs", true);
        if self.may_check(true) {
            bounded(&mut found, async |found| {
                keks::check(self.session, &mut troubled, found).await
            })
            .await;
        }
        self.checks.push(found);

        let mut found = self.begin("keys", false);
        let (mut active, mut edited) = (None, false);
        if self.has_tables {
            (active, edited) = Box::pin(self.versions(&troubled, &mut found)).await;
        }
        self.checks.push(found);

        let mut found = self.begin("encryption context", true);
        if self.may_check(true) {
            bounded(&mut found, async |found| {
                let chain = chain::check(self.session, active.as_ref(), troubled.is_empty(), found);
                Box::pin(chain).await
            })
            .await;
        }
        self.checks.push(found);

        let mut found = self.begin("columns", false);
        if self.database.is_none() {
            found.not_checked("columns are looked at in PostgreSQL and SQLite");
        } else if self.has_tables {
            bounded(&mut found, async |found| {
                Box::pin(columns::check(self.session, found)).await
            })
            .await;
        }
        self.checks.push(found);

        let mut found = self.begin("rotation", true);
        if self.may_check(true) {
            bounded(&mut found, async |found| {
                rotation::check(self.session, edited, found).await
            })
            .await;
        }
        self.checks.push(found);

        let mut found = self.begin("processes", false);
        if self.has_tables {
            bounded(&mut found, async |found| {
                processes::check(&*self.session.store().await?, found).await
            })
            .await;
        }
        self.checks.push(found);

        if let Some(folder) = &self.options.receipts {
            let mut found = self.begin("shreddings", false);
            if self.has_tables {
                bounded(&mut found, async |found| {
                    shreddings::check(&*self.session.store().await?, folder, found).await
                })
                .await;
            }
            self.checks.push(found);
        }
    }

    /// Checks versions. Returns an active one, and whether an edited row was found.
    async fn versions(&self, troubled: &Troubled, found: &mut Check) -> (Option<KeyRecord>, bool) {
        match &self.database {
            Some(database) => {
                bounded(found, async |found| {
                    structure::check(database, found).await;
                    Ok(())
                })
                .await;
            }
            None => found.not_checked("wraps and gaps: the key store is neither in PostgreSQL nor in SQLite"),
        }
        let mut seen = Seen::default();
        if !self.has_kms {
            found.not_checked("no version was unwrapped, because the settings of the KMS cannot be used");
            return (None, false);
        }
        let looked = async {
            let (manager, store) = self.manager().await?;
            let versions = Versions {
                store: &*store,
                database: self.database.as_ref(),
                manager: &manager,
                troubled,
            };
            match self.options.deep {
                true => versions.all(&mut seen).await,
                false => in_time(versions.sample(&mut seen)).await,
            }
        };
        if let Err(error) = looked.await {
            versions::failed(&error, &seen, found);
        }
        let edited = seen.tell(found);
        (seen.active, edited)
    }

    async fn manager(&self) -> Result<(KeyManager, std::sync::Arc<dyn encx::store::KeyStore>)> {
        Ok((self.session.manager(None).await?, self.session.store().await?))
    }

    fn may_check(&self, needs_kms: bool) -> bool {
        self.has_tables && (self.has_kms || !needs_kms)
    }

    /// Begins a check that needs the tables. Notes if they or the KMS cannot be used.
    fn begin(&self, name: &'static str, needs_kms: bool) -> Check {
        let mut check = Check::new(name);
        if !self.has_tables {
            check.not_checked("the key store's tables cannot be used as they are");
        } else if needs_kms && !self.has_kms {
            check.not_checked("the settings of the KMS cannot be used");
        }
        check
    }
}

/// Runs a check within its time limit. Keeps what it found until then.
async fn bounded(found: &mut Check, check: impl AsyncFnOnce(&mut Check) -> Result<()>) {
    if let Err(error) = in_time(check(found)).await {
        found.not_checked(describe(&error));
    }
}

async fn in_time(check: impl Future<Output = Result<()>>) -> Result<()> {
    match tokio::time::timeout(PATIENCE, check).await {
        Ok(checked) => checked,
        Err(_) => Err(anyhow::anyhow!("it took longer than {PATIENCE:?}")),
    }
}
