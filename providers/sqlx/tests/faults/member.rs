//! A process of a test: a `Crypto` that serves requests, in the test's own process or in a worker.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use encx::jobs::{JobEnd, JobReport};
use encx::keys::{DataKeyId, KeyManager, KeyState, Maintenance, MaintenanceReport};
use encx::record::{EncryptedColumn, RowIdKind};
use encx::store::StoreError;
use encx::{Ciphertext, Crypto, EncryptionContext, Error};
use encx_sqlx::PostgresKeyStore;
use encx_tables::Rows;
use serde::{Deserialize, Serialize};
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};

use crate::invariants::text_of;
use crate::kms::{Control, ControlledKms};
use crate::proxy::Proxy;
use crate::races;
use crate::scene::NOTE;

/// The settings of a member. Passed between processes as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) url: String,
    /// The folder with the KEK file and the KMS's switches.
    pub(crate) folder: PathBuf,
    /// The alias of the KEK that wraps; the other KEK may unwrap.
    pub(crate) kek: String,
    pub(crate) ttl: Duration,
    pub(crate) stale: Duration,
    pub(crate) state_ttl: Duration,
    /// The port of a transaction pooler for the key store's connections.
    pub(crate) pooler: Option<u16>,
    /// Whether it listens for changes, on a connection that bypasses the pooler.
    pub(crate) listens: bool,
    pub(crate) connections: u32,
    pub(crate) acquire_timeout: Duration,
    pub(crate) load_timeout: Duration,
}

impl Settings {
    pub(crate) fn new(url: &str, folder: &Path) -> Self {
        Self {
            url: url.to_owned(),
            folder: folder.to_owned(),
            kek: "alias/old".to_owned(),
            ttl: Duration::from_secs(3600),
            stale: Duration::ZERO,
            state_ttl: Duration::from_secs(60),
            pooler: None,
            listens: false,
            connections: 3,
            acquire_timeout: Duration::from_secs(3),
            load_timeout: Duration::from_secs(30),
        }
    }

    /// Wraps with the KEK that keys are moved to.
    pub(crate) fn moving(mut self) -> Self {
        self.kek = "alias/new".to_owned();
        self
    }

    /// Connects to the database through a proxy.
    pub(crate) fn through(mut self, proxy: &Proxy) -> Self {
        let options = PgConnectOptions::from_str(&self.url).unwrap();
        self.url = options.port(proxy.port).to_url_lossy().into();
        self
    }
}

/// A request to a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Ask {
    Create {
        tenant: String,
    },
    Decrypt {
        tenant: String,
        sealed: Vec<u8>,
        id: i64,
    },
    Destroy {
        tenant: String,
        key: String,
    },
    Encrypt {
        tenant: String,
        text: String,
        id: i64,
    },
    Race(races::Part),
    Rewrap {
        tenant: String,
    },
    Rotate {
        tenant: String,
    },
    SetState {
        tenant: String,
        key: String,
        state: String,
    },
    /// Rotates due versions, once.
    Maintain {
        lease: Duration,
        deadline: Duration,
    },
    /// Re-encrypts all patients' notes that are not under the active version, with this range size.
    Reencrypt {
        range: u32,
    },
    /// Moves all keys to the KEK of the settings, with this range size.
    RewrapAll {
        range: u32,
    },
    Shred {
        tenant: String,
    },
    /// Writes and reads for all tenants without a pause until each has another active version. Answers with the number
    /// of calls that waited for a key.
    UntilSwitched {
        tenants: Vec<String>,
    },
    /// Reads repeatedly until it fails, and answers with that error.
    UntilRefused {
        tenant: String,
        sealed: Vec<u8>,
        id: i64,
    },
}

/// The result of a request: text or bytes, or an error as the caller sees it.
pub(crate) type Answer = Result<Vec<u8>, Failure>;

/// An error as the caller sees it, passed between processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// The name of the variant, followed by that of an inner error: `Kms::Unavailable`.
    pub(crate) kind: String,
    pub(crate) text: String,
    pub(crate) retryable: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            kind: kind_of(&error),
            text: error.to_string(),
            retryable: error.is_retryable(),
        }
    }
}

/// Names the variants that tests check; any other error is its text.
fn kind_of(error: &Error) -> String {
    match error {
        Error::AlreadyExists => "AlreadyExists".to_owned(),
        Error::Compromised { .. } => "Compromised".to_owned(),
        Error::Destroyed { .. } => "Destroyed".to_owned(),
        Error::Kms(error) => format!("Kms::{:?}", error.kind()),
        Error::Shredded => "Shredded".to_owned(),
        Error::Store(StoreError::IllegalTransition { .. }) => "Store::IllegalTransition".to_owned(),
        Error::Suspended { .. } => "Suspended".to_owned(),
        error => error.to_string(),
    }
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) crypto: Crypto,
    /// The key store's connections.
    pub(crate) pool: PgPool,
    /// The user's own connections.
    pub(crate) rows: PgPool,
}

impl Member {
    pub(crate) async fn new(settings: Settings) -> Self {
        let options = PgConnectOptions::from_str(&settings.url).unwrap();
        let pool = |connections, options| {
            PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(settings.acquire_timeout)
                .connect_lazy_with(options)
        };
        let keys = match settings.pooler {
            Some(port) => options
                .clone()
                .port(port)
                .statement_cache_capacity(0)
                .extra_float_digits(None),
            None => options.clone(),
        };
        let keys = pool(settings.connections, keys);
        let mut store = PostgresKeyStore::from_pool(keys.clone());
        if settings.pooler.is_some() {
            store = store.behind_transaction_pooler();
        }
        if settings.listens {
            store = store.listen_url(&settings.url);
        }
        let control = Control::new(&settings.folder);
        let kms = ControlledKms::open(&settings.folder.join("keks"), control).await;
        let crypto = Crypto::builder(kms, store)
            .kek(settings.kek.as_str())
            .also_unwrap("alias/old")
            .also_unwrap("alias/new")
            .ttl(settings.ttl)
            .stale_if_unavailable(settings.stale)
            .state_ttl(settings.state_ttl)
            .load_timeout(settings.load_timeout)
            .build()
            .await
            .unwrap();
        let rows = pool(2, options);
        Self {
            crypto,
            pool: keys,
            rows,
        }
    }

    pub(crate) fn keys(&self) -> KeyManager {
        self.crypto.key_manager()
    }

    pub(crate) async fn perform(&self, ask: Ask) -> Answer {
        let nothing = Vec::new;
        let done = match ask {
            Ask::Create { tenant } => self.keys().create(&context(&tenant)).await.map(|_| nothing()),
            Ask::Decrypt { tenant, sealed, id } => self.decrypt(&tenant, sealed, id).await,
            Ask::Destroy { tenant, key } => {
                let keys = self.keys();
                let done = keys
                    .destroy_with_data(&context(&tenant), key_id(&key), "a test")
                    .await;
                done.map(|_| nothing())
            }
            Ask::Encrypt { tenant, text, id } => self
                .crypto
                .encrypt(&context(&tenant), text, NOTE.row(id))
                .await
                .map(Ciphertext::into_bytes),
            Ask::Race(part) => {
                races::run(self, part).await;
                Ok(nothing())
            }
            Ask::Rewrap { tenant } => {
                let moved = self.keys().rewrap(&context(&tenant)).await;
                moved.map(|moved| moved.len().to_string().into_bytes())
            }
            Ask::Maintain { lease, deadline } => {
                let maintenance = Maintenance::new(self.keys())
                    .rotate_every(DAY)
                    .lease_term(lease)
                    .publish_deadline(deadline);
                return maintained(maintenance.run_once().await?);
            }
            Ask::Shred { tenant } => {
                let patience = Duration::from_secs(2);
                let receipt = self.keys().shred(&context(&tenant), patience).await;
                receipt.and_then(|receipt| receipt.processes).map(|_| nothing())
            }
            Ask::UntilSwitched { tenants } => self.until_switched(&tenants).await,
            Ask::Reencrypt { range } => {
                let job = Rows::postgres(self.rows.clone()).reencrypt(&self.crypto, [notes()]);
                return outcome_of(&job.unwrap().range_size(range).run().await);
            }
            Ask::RewrapAll { range } => {
                return outcome_of(&self.keys().rewrap_all().range_size(range).run().await);
            }
            Ask::Rotate { tenant } => {
                let rotated = self.keys().rotate(&context(&tenant)).await;
                rotated.map(|active| active.version.get().to_string().into_bytes())
            }
            Ask::SetState { tenant, key, state } => {
                let state = KeyState::from_name(&state).unwrap();
                let done = self
                    .keys()
                    .set_state(&context(&tenant), key_id(&key), state)
                    .await;
                done.map(|_| nothing())
            }
            Ask::UntilRefused { tenant, sealed, id } => loop {
                self.decrypt(&tenant, sealed.clone(), id).await?;
                tokio::time::sleep(Duration::from_millis(2)).await;
            },
        };
        done.map_err(Failure::from)
    }

    async fn until_switched(&self, tenants: &[String]) -> Result<Vec<u8>, Error> {
        let active = async |tenant: &String| {
            let (context, row) = (context(tenant), NOTE.row(1));
            let sealed = self.crypto.encrypt(&context, tenant, &row).await?;
            let opened = self.crypto.decrypt(&context, &sealed, &row).await?;
            assert_eq!(opened.as_bytes(), tenant.as_bytes());
            Ok::<_, Error>(sealed.key_id())
        };
        let mut first = Vec::new();
        for tenant in tenants {
            first.push(active(tenant).await?);
        }
        let waited = self.crypto.stats().misses;
        loop {
            let mut switched = 0;
            for (tenant, first) in tenants.iter().zip(&first) {
                switched += usize::from(active(tenant).await? != *first);
            }
            if switched == tenants.len() {
                let waited = self.crypto.stats().misses - waited;
                return Ok(waited.to_string().into_bytes());
            }
            tokio::task::yield_now().await;
        }
    }

    /// Writes a patient's note as a user would: encrypts, then stores.
    pub(crate) async fn write_note(&self, tenant: &str, id: i64) -> Result<(), Error> {
        let (context, text) = (context(tenant), text_of(tenant, id));
        let sealed = self.crypto.encrypt(&context, text, NOTE.row(id)).await?;
        let upsert = "INSERT INTO patients VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET note = $3";
        sqlx::query(upsert)
            .bind(id)
            .bind(tenant)
            .bind(sealed)
            .execute(&self.rows)
            .await
            .unwrap();
        Ok(())
    }

    async fn decrypt(&self, tenant: &str, sealed: Vec<u8>, id: i64) -> Result<Vec<u8>, Error> {
        let sealed = Ciphertext::parse(sealed)?;
        let opened = self
            .crypto
            .decrypt(&context(tenant), &sealed, NOTE.row(id))
            .await?;
        Ok(opened.as_bytes().to_vec())
    }
}

/// How old a key may be, for maintenance.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A completed run answers with the numbers of versions made and promoted.
fn maintained(report: MaintenanceReport) -> Answer {
    if report.held_elsewhere {
        return Err(Failure {
            kind: "Held".to_owned(),
            text: "another process has the lease".to_owned(),
            retryable: true,
        });
    }
    let failed = report.failed.into_iter().map(|failed| failed.error);
    match report.stopped.into_iter().chain(failed).next() {
        Some(error) => Err(error.into()),
        None => Ok(format!("{} {}", report.published.len(), report.promoted.len()).into_bytes()),
    }
}

/// A finished job answers with the number of items changed by all its workers.
fn outcome_of(report: &JobReport) -> Answer {
    if report.is_complete() {
        return Ok(report.run.changed.to_string().into_bytes());
    }
    let retryable = match &report.ended_by {
        JobEnd::GaveUp(error) => error.is_retryable(),
        _ => false,
    };
    Err(Failure {
        kind: "Job".to_owned(),
        text: report.to_string(),
        retryable,
    })
}

/// The column of the notes.
pub(crate) fn notes() -> EncryptedColumn {
    EncryptedColumn::of(&NOTE)
        .row_id("id", RowIdKind::Integer)
        .context_column("tenantId", "tenant")
}

pub(crate) fn context(tenant: &str) -> EncryptionContext {
    EncryptionContext::builder()
        .pair("tenantId", tenant)
        .build()
        .unwrap()
}

fn key_id(text: &str) -> DataKeyId {
    text.parse().unwrap()
}
