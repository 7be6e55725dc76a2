//! Checks that versions unwrap to the keys they were created as: a sample, or all.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;

use anyhow::Result;
use encx::Error;
use encx::keys::{DataKeyId, KeyManager, KeyState};
use encx::kms::KmsErrorKind;
use encx::store::{KeyQuery, KeyRecord, KeyStore, StoreError};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use crate::doctor::database::{Database, Ids, Sql};
use crate::doctor::finding::{Check, Code, Severity, count_of, subject};
use crate::doctor::keks::Troubled;
use crate::exit::describe;

/// Versions read at once.
const PAGE: u32 = 200;

/// Versions unwrapped at once.
const CONCURRENCY: usize = 8;

/// Versions that a finding names.
const NAMED: usize = 5;

/// The newest active versions, and as many random ones that are not destroyed.
const SAMPLE: Sql = Sql {
    postgres: "
        SELECT uuid_send(id) FROM (
            (SELECT id FROM encx.data_keys WHERE state = 'active' ORDER BY id DESC LIMIT 20)
            UNION
            (SELECT id FROM encx.data_keys WHERE state <> 'destroyed' ORDER BY random() LIMIT 20)) s
        WHERE $1::bytea IS NOT NULL",
    sqlite: "
        SELECT id FROM (SELECT id FROM encx_data_keys WHERE state = 'active' ORDER BY id DESC LIMIT 20)
        UNION
        SELECT id FROM (SELECT id FROM encx_data_keys WHERE state <> 'destroyed' ORDER BY random() LIMIT 20)
        WHERE ?1 IS NOT NULL",
};

const ALL: Sql = Sql {
    postgres: "
        SELECT uuid_send(id) FROM encx.data_keys
        WHERE id > encode($1, 'hex')::uuid AND state <> 'destroyed' ORDER BY id LIMIT 200",
    sqlite: "SELECT id FROM encx_data_keys WHERE id > ?1 AND state <> 'destroyed' ORDER BY id LIMIT 200",
};

/// The inputs of a check of versions.
pub(crate) struct Versions<'d> {
    pub(crate) store: &'d dyn KeyStore,
    pub(crate) database: Option<&'d Database>,
    pub(crate) manager: &'d KeyManager,
    pub(crate) troubled: &'d Troubled,
}

/// Results so far.
#[derive(Default)]
pub(crate) struct Seen {
    faults: BTreeMap<Code, Fault>,
    /// Counts of versions that were not tried, by reason.
    untried: BTreeMap<String, u64>,
    /// An active version for data, whose context can be tested.
    pub(crate) active: Option<KeyRecord>,
    /// Versions read so far.
    count: u64,
}

struct Fault {
    severity: Severity,
    versions: u64,
    named: Vec<String>,
    what: String,
    remedy: &'static str,
}

impl Versions<'_> {
    pub(crate) async fn sample(&self, seen: &mut Seen) -> Result<()> {
        let ids = match self.database {
            Some(database) => database.ids(&SAMPLE, None).await?,
            None => self.page(None, 40).await?,
        };
        self.look(ids, seen, &ProgressBar::hidden()).await
    }

    pub(crate) async fn all(&self, seen: &mut Seen) -> Result<()> {
        let bar = bar(self.count().await);
        let mut after: Option<Vec<u8>> = None;
        loop {
            let ids = match self.database {
                Some(database) => database.ids(&ALL, after.as_deref()).await?,
                None => self.page(after.as_deref(), PAGE).await?,
            };
            let Some(last) = ids.last.clone() else {
                break;
            };
            after = Some(last);
            self.look(ids, seen, &bar).await?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    async fn page(&self, after: Option<&[u8]>, limit: u32) -> Result<Ids> {
        let mut query = KeyState::ALL
            .into_iter()
            .filter(|state| *state != KeyState::Destroyed)
            .fold(KeyQuery::new(limit), KeyQuery::state);
        if let Some(after) = after {
            query = query.after(DataKeyId::from_bytes(after.try_into()?)?);
        }
        let records = self.store.page(&query).await?.records;
        let valid: Vec<_> = records.iter().map(|record| record.id).collect();
        Ok(Ids {
            last: valid.last().map(|id| id.to_bytes().to_vec()),
            valid,
            invalid: Vec::new(),
        })
    }

    async fn count(&self) -> Option<u64> {
        let summary = self.store.summary().await.ok()?;
        let live = summary
            .counts
            .iter()
            .filter(|count| count.state != KeyState::Destroyed);
        Some(live.map(|count| count.versions).sum())
    }

    /// Reads versions, and unwraps a few at once.
    async fn look(&self, ids: Ids, seen: &mut Seen, bar: &ProgressBar) -> Result<()> {
        for invalid in ids.invalid {
            bar.inc(1);
            seen.count += 1;
            seen.edited(invalid, "its id is no UUID of version 7");
        }
        let mut tasks = JoinSet::new();
        for record in self.read(&ids.valid, seen).await? {
            bar.inc(1);
            seen.count += 1;
            if self.is_known_to_fail(&record, seen) {
                continue;
            }
            if tasks.len() >= CONCURRENCY
                && let Some(done) = tasks.join_next().await
            {
                seen.note(done?);
            }
            let manager = self.manager.clone();
            tasks.spawn(async move {
                let checked = manager.check_version(&record).await;
                (record, checked)
            });
        }
        while let Some(done) = tasks.join_next().await {
            seen.note(done?);
        }
        Ok(())
    }

    /// Reads versions. An edited row fails its whole batch, whose versions are then read one by one.
    async fn read(&self, ids: &[DataKeyId], seen: &mut Seen) -> Result<Vec<KeyRecord>> {
        match self.store.get(ids).await {
            Err(StoreError::Corrupt { .. }) => {}
            read => return Ok(read?),
        }
        let mut records = Vec::with_capacity(ids.len());
        for id in ids {
            match self.store.get(&[*id]).await {
                Ok(read) => records.extend(read),
                Err(StoreError::Corrupt { what }) => seen.edited(id.to_string(), &what),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(records)
    }

    /// Tells whether another check already reported why a version fails.
    fn is_known_to_fail(&self, record: &KeyRecord, seen: &mut Seen) -> bool {
        if record.wraps.is_empty() {
            return true;
        }
        let troubled =
            |wrap: &&encx::store::StoredWrap| self.troubled.has(wrap.kms.as_str(), wrap.wrapped.kek.as_str());
        if !record.wraps.iter().all(|wrap| troubled(&wrap)) {
            return false;
        }
        seen.untried("their KEKs cannot be used, as found above");
        true
    }
}

impl Seen {
    fn untried(&mut self, why: &str) {
        *self.untried.entry(why.to_owned()).or_default() += 1;
    }

    fn edited(&mut self, id: String, what: &str) {
        self.fault(
            Code::RowEdited,
            Severity::Error,
            id,
            format!("its row is not what encx writes: {what}"),
            "restore its row from a backup, and find out which client with write access changed it",
        );
    }

    fn fault(&mut self, code: Code, severity: Severity, id: String, what: String, remedy: &'static str) {
        let fault = self.faults.entry(code).or_insert_with(|| Fault {
            severity,
            versions: 0,
            named: Vec::new(),
            what,
            remedy,
        });
        fault.versions += 1;
        if fault.named.len() < NAMED {
            fault.named.push(id);
        }
    }

    fn note(&mut self, (record, checked): (KeyRecord, Result<(), Error>)) {
        let id = record.id;
        let Err(error) = checked else {
            let is_newer = self.active.as_ref().is_none_or(|known| known.id < id);
            if record.state == KeyState::Active && record.usage == encx::keys::KeyUsage::Data && is_newer {
                self.active = Some(record);
            }
            return;
        };
        let text = error.to_string();
        match &error {
            Error::Store(StoreError::Corrupt { what }) => self.edited(id.to_string(), what),
            Error::KeyMismatch { .. } => self.fault(
                Code::KeyCheckMismatch,
                Severity::Error,
                id.to_string(),
                "it unwraps to another key than its row says: the row was edited, or its wrap was replaced"
                    .to_owned(),
                "restore its rows of data_keys and wrapped_keys from a backup",
            ),
            Error::KekNotAllowed { .. } => self.fault(
                Code::KekNotAllowed,
                Severity::Error,
                id.to_string(),
                text,
                "add the KEK to `also_unwrap` for this encryption context, then `encx rewrap`",
            ),
            Error::Kms(kms) if kms.kind() == KmsErrorKind::AccessDenied => self.fault(
                Code::UnwrapDenied,
                Severity::Warning,
                id.to_string(),
                format!("the KMS denies these credentials to unwrap it: {text}"),
                "allow it as the policies of encx-aws do, or run this with the credentials of the service",
            ),
            Error::Kms(kms) if !kms.is_retryable() && kms.kind() != KmsErrorKind::LimitExceeded => self
                .fault(
                    Code::UnwrapRefused,
                    Severity::Error,
                    id.to_string(),
                    format!("the KMS does not unwrap it: {text}"),
                    "restore its rows of wrapped_keys from a backup",
                ),
            // Destroyed since it was read.
            Error::Destroyed { .. } | Error::RolledBack { .. } => {}
            _ => self.untried(&text),
        }
    }

    /// Turns the results into findings. Returns whether an edited row was found.
    pub(crate) fn tell(&self, found: &mut Check) -> bool {
        for (code, fault) in &self.faults {
            let subject = subject("data key", &fault.named, fault.versions);
            found.find(fault.severity, *code, subject, fault.what.clone(), fault.remedy);
        }
        for (why, count) in &self.untried {
            found.not_checked(format!("{}: {why}", count_of(*count, "version")));
        }
        self.faults.contains_key(&Code::RowEdited)
    }
}

/// A progress bar if stderr is a terminal.
fn bar(total: Option<u64>) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(total.unwrap_or_default());
    let template = "{spinner} versions: {pos} of {len} ({per_sec}, {eta} left)";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(std::time::Duration::from_millis(120));
    bar
}

/// Notes why the remaining versions were not checked.
pub(crate) fn failed(error: &anyhow::Error, seen: &Seen, found: &mut Check) {
    found.not_checked(format!(
        "versions after the first {}: {}",
        seen.count,
        describe(error)
    ));
}
