//! Turning a plaintext column into an encrypted one while services use it: backfill, verify, contract.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use encx::jobs::{Job, JobError, Walk, WalkOutcome, WalkPage};
use encx::record::{Encoded, EncryptedColumn, FieldCodec};
use encx::store::JobStatus;
use encx::{Ciphertext, Crypto, Error};

use crate::adoption::Adoption;
use crate::adoption_status::AdoptionStatus;
use crate::cell::Cell;
use crate::error::RowsError;
use crate::ident::Ident;
use crate::layout::Change;
use crate::layout::{Layout, Plain, PlainKind, Row};
use crate::rows::Rows;
use crate::sql::{Filter, Write};
use crate::walk::{Decide, Decided, Item, Walked, encrypt, open};

/// A plaintext column to encrypt. Values are encoded as `#[derive(Encrypt)]` encodes a field of that type.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlaintextColumn {
    sql_column: String,
    kind: PlainKind,
}

impl PlaintextColumn {
    /// Describes a column of bytes: `bytea` or `blob`.
    #[must_use]
    pub fn bytes(sql_column: impl Into<String>) -> Self {
        Self::new(sql_column.into(), PlainKind::Bytes)
    }

    /// Describes a column of integers: `smallint`, `integer` or `bigint`.
    #[must_use]
    pub fn integer(sql_column: impl Into<String>) -> Self {
        Self::new(sql_column.into(), PlainKind::Integer)
    }

    /// Describes a column of text: `text` or `varchar`.
    #[must_use]
    pub fn text(sql_column: impl Into<String>) -> Self {
        Self::new(sql_column.into(), PlainKind::Text)
    }

    /// Describes a column of UUIDs: `uuid`; in SQLite, 16 bytes or text.
    #[must_use]
    pub fn uuid(sql_column: impl Into<String>) -> Self {
        Self::new(sql_column.into(), PlainKind::Uuid)
    }

    fn new(sql_column: String, kind: PlainKind) -> Self {
        Self { sql_column, kind }
    }
}

/// The steps from a plaintext column to an encrypted one, for a table in use. From [`Rows::adopt`].
///
/// Plaintexts are trusted until the day that the [`Adoption`] names. Until then, an attacker who can write
/// the plaintext column has their values encrypted.
///
/// 1. *Expand*: add the nullable encrypted column. Deploy a service that writes both columns in one statement
///    and reads with [`read_either`](crate::read_either). Wait until no older version runs.
/// 2. [`backfill`](Self::backfill) encrypts the existing rows. [`verify`](Self::verify) opens every row that
///    has a plaintext and compares.
/// 3. Deploy a service that reads and writes only the encrypted column, and sets the plaintext to NULL where
///    it writes. Wait again until no older version runs.
/// 4. *Contract*: [`contract`](Self::contract) sets each plaintext to NULL whose ciphertext opens to it. Then
///    drop the column, and rewrite the table if the database keeps old rows (`VACUUM FULL`, or time).
///
/// Each step is a [`Job`] that can be stopped, resumed, throttled, shared and repeated.
#[derive(Clone, Debug)]
pub struct AdoptionJobs {
    rows: Rows,
    crypto: Crypto,
    layout: Layout,
    adoption: Adoption,
}

impl Rows {
    /// Prepares the steps from a plaintext column to an encrypted one in the same table.
    ///
    /// Plaintexts are trusted until the day that `adoption` names.
    ///
    /// ```
    /// use encx::Crypto;
    /// use encx::record::{EncryptedColumn, RowIdKind};
    /// use encx_tables::{Adoption, AdoptionJobs, PlaintextColumn, Rows, RowsError};
    ///
    /// /// Up to and including this day, `users.ssn` may hold plaintexts.
    /// const SSN_ADOPTION: Adoption = Adoption::until("2099-03-31");
    ///
    /// fn adoption(rows: &Rows, crypto: &Crypto) -> Result<AdoptionJobs, RowsError> {
    ///     let sealed = EncryptedColumn::new("users", "ssn")
    ///         .stored_in("users", "ssn_sealed")
    ///         .row_id("id", RowIdKind::Integer)
    ///         .context_column("tenantId", "tenant_id")
    ///         .context_value("purpose", "pii");
    ///     rows.adopt(crypto, PlaintextColumn::text("ssn"), sealed, SSN_ADOPTION)
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RowsError::Description`] for an invalid description.
    pub fn adopt(
        &self,
        crypto: &Crypto,
        plaintext: PlaintextColumn,
        encrypted: EncryptedColumn,
        adoption: Adoption,
    ) -> Result<AdoptionJobs, RowsError> {
        let mut layout = Layout::new(encrypted)?;
        if plaintext.sql_column == layout.described.sql_column {
            let what = format!(
                "{:?} cannot be both the plaintext and the encrypted column",
                plaintext.sql_column
            );
            return Err(RowsError::Description { what });
        }
        if let Some(bound) = layout.described.bound.first() {
            let what =
                format!("{bound:?} is bound to what is encrypted, which no adoption of a column can do");
            return Err(RowsError::Description { what });
        }
        layout.plain = Some(Plain {
            ident: Ident::column(&plaintext.sql_column)?,
            name: plaintext.sql_column,
            kind: plaintext.kind,
        });
        let (rows, crypto) = (self.clone(), crypto.clone());
        Ok(AdoptionJobs {
            rows,
            crypto,
            layout,
            adoption,
        })
    }
}

impl AdoptionJobs {
    /// Encrypts every plaintext that has no ciphertext beside it.
    ///
    /// Writes a row only if its plaintext is unchanged and it still has no ciphertext, so concurrent writes
    /// of a service stay. Keeps the plaintext.
    ///
    /// Refuses to run after the [`Adoption`] ended ([`RowsError::AdoptionEnded`]), by the clock of the
    /// `Crypto`. Also refuses once [`contract`](Self::contract) has begun to set plaintexts to NULL
    /// ([`RowsError::Contracted`]), as recorded in the key store's job table. The run then ends with
    /// [`JobEnd::GaveUp`](encx::jobs::JobEnd::GaveUp), with the [`RowsError`] as its source.
    ///
    /// <div class="warning">
    ///
    /// This encrypts the plaintext column as it is. An attacker who can write that column has their values
    /// encrypted, in any row, and the ciphertexts make them look genuine. Keep the adoption short.
    ///
    /// </div>
    ///
    /// ```
    /// # use encx_tables::AdoptionJobs;
    /// # async fn example(adoption: &AdoptionJobs) {
    /// // At most 500 rows a second, to leave capacity for the service.
    /// let report = adoption.backfill().throttle(500).run().await;
    /// if !report.is_complete() {
    ///     println!("{report}");
    /// }
    /// # }
    /// ```
    pub fn backfill(&self) -> Job<Adopt> {
        self.job("encx/backfill", Step::Backfill)
    }

    /// Opens every ciphertext that has a plaintext beside it and compares the two. Changes nothing.
    ///
    /// A match counts as unchanged. [`RowsError::Mismatch`] and [`RowsError::NotBackfilled`] count as failed.
    ///
    /// ```
    /// # use encx_tables::AdoptionJobs;
    /// # async fn example(adoption: &AdoptionJobs) {
    /// let report = adoption.verify().run().await;
    /// assert!(report.is_complete(), "do not contract yet: {report}");
    /// # }
    /// ```
    pub fn verify(&self) -> Job<Adopt> {
        self.job("encx/verify-adoption", Step::Verify)
    }

    /// Sets every plaintext to NULL whose ciphertext opens to it. Reports and keeps the others.
    ///
    /// <div class="warning">
    ///
    /// Afterwards only the ciphertexts hold the data. First back up the key store and make sure its KEKs are
    /// safe.
    ///
    /// </div>
    ///
    /// ```
    /// # use encx_tables::AdoptionJobs;
    /// # async fn example(adoption: &AdoptionJobs) {
    /// // What would become NULL:
    /// let planned = adoption.contract().dry_run().run().await;
    /// println!("{} plaintexts", planned.run.changed);
    ///
    /// let report = adoption.contract().run().await;
    /// if !report.is_complete() {
    ///     println!("{report}");
    /// }
    /// # }
    /// ```
    pub fn contract(&self) -> Job<Adopt> {
        self.job("encx/contract", Step::Contract)
    }

    /// Counts the rows by which of the two columns have a value.
    ///
    /// Reads the whole table. Also tells whether the column was contracted, as recorded in the key store's
    /// job table.
    ///
    /// # Errors
    ///
    /// Database and key store errors, and errors in the columns' names and types.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn status(&self) -> Result<AdoptionStatus, RowsError> {
        self.rows.check(&self.layout, false).await?;
        let mut status = self.rows.count_adopted(&self.layout).await?;
        if let Some(jobs) = self.crypto.key_store().jobs() {
            let contracted = jobs.job(&self.contracted_name()).await;
            status.contracted = contracted.map_err(Error::from)?.is_some();
        }
        Ok(status)
    }

    /// Returns the job name that records a contraction.
    fn contracted_name(&self) -> String {
        let plain = self.layout.plain.as_ref();
        let plain = plain.map_or("", |plain| plain.ident.as_str());
        let plain = format!("{}.{plain}", self.layout.table.as_str());
        JobStatus::name_for("encx/contracted", [plain])
    }

    fn job(&self, name: &str, step: Step) -> Job<Adopt> {
        let filter = match step {
            Step::Backfill => Filter::NotYetEncrypted,
            Step::Contract | Step::Verify => Filter::Plain,
        };
        let layouts = vec![self.layout.clone()];
        let walked = Walked::new(self.rows.clone(), layouts, filter, step == Step::Contract);
        let name = walked.job_name(name);
        let walk = Adopt {
            crypto: self.crypto.clone(),
            walked,
            step,
            adoption: self.adoption,
            contracted: self.contracted_name(),
            is_remembered: AtomicBool::new(false),
        };
        Job::new(&self.crypto, name, walk)
    }
}

/// A step of an adoption: see [`AdoptionJobs`].
pub struct Adopt {
    crypto: Crypto,
    walked: Walked,
    step: Step,
    adoption: Adoption,
    /// The job name that records a contraction.
    contracted: String,
    /// Whether this walk has recorded the contraction.
    is_remembered: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Backfill,
    Contract,
    Verify,
}

/// Encodes a plaintext as `#[derive(Encrypt)]` encodes a field of that type.
fn encoded(layout: &Layout, plain: &Cell) -> Result<Encoded<'static>, JobError> {
    let kind = layout.plain.as_ref().map(|plain| plain.kind);
    let found = plain.type_name();
    let uuid = plain.as_uuid().filter(|_| kind == Some(PlainKind::Uuid));
    let bytes = match (plain, &uuid) {
        (_, Some(uuid)) | (Cell::Uuid(uuid), None) => uuid.encode(),
        (Cell::Bytes(value), None) => value.encode(),
        (Cell::Integer(value), None) => value.encode(),
        (Cell::Text(value), None) => value.encode(),
        (Cell::Raw(_) | Cell::Real(_), None) => {
            let plain = layout.plain.as_ref().map_or("", |plain| plain.name.as_str());
            let expected = kind.map_or("another type", PlainKind::expected);
            return Err(layout.mistyped(plain, found, expected).into());
        }
    };
    let bytes = bytes.map_err(Error::from)?;
    Ok(Encoded::owned(bytes.as_bytes().to_vec()))
}

impl Adopt {
    /// Refuses plaintexts after the adoption ended, or after a contraction began.
    async fn check(&self) -> Result<(), JobError> {
        self.adoption.check(&self.crypto)?;
        let store = self.crypto.key_store();
        if let Some(jobs) = store.jobs()
            && jobs.job(&self.contracted).await?.is_some()
        {
            let layout = self.walked.layouts.first();
            return Err(JobError::from(RowsError::Contracted {
                table: layout.map_or(String::new(), |layout| layout.described.sql_table.clone()),
                column: layout
                    .and_then(|layout| layout.plain.as_ref())
                    .map_or(String::new(), |plain| plain.name.clone()),
                job: self.contracted.clone(),
            }));
        }
        Ok(())
    }

    /// Records the contraction in the job table, before the first plaintext becomes NULL.
    ///
    /// The record is a job that never runs. An attacker with write access can delete it, so it only forbids:
    /// without it, the adoption's end still applies.
    async fn remember(&self) -> Result<(), JobError> {
        if self.is_remembered.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(jobs) = self.crypto.key_store().jobs() {
            jobs.open_job(&self.contracted, "contracted").await?;
        }
        self.is_remembered.store(true, Ordering::Relaxed);
        Ok(())
    }

    async fn encrypt(&self, column: u16, rows: Vec<Row>) -> Vec<Decided> {
        let mut decided = Vec::with_capacity(rows.len());
        let bound = self.walked.bind(column, rows, &mut decided);
        let layout = &self.walked.layouts[usize::from(column)];
        let is_uuid = layout
            .plain
            .as_ref()
            .is_some_and(|plain| plain.kind == PlainKind::Uuid);
        let mut left = Vec::with_capacity(bound.len());
        // The range may have been read before the adoption ended.
        if let Err(error) = self.adoption.check(&self.crypto) {
            let failed = bound.into_iter();
            decided.extend(failed.map(|bound| Decided::Failed(bound.row, error.clone().into())));
            return decided;
        }
        for bound in bound {
            match (&bound.row.cipher, &bound.row.plain) {
                // Encrypted as is, without copying large values.
                (None, Some(Cell::Bytes(_) | Cell::Text(_))) if !is_uuid => left.push((bound, None)),
                (None, Some(plain)) => match encoded(layout, plain) {
                    Ok(value) => left.push((bound, Some(value))),
                    Err(error) => decided.push(Decided::Failed(bound.row, error)),
                },
                // Encrypted, or set to NULL, since the page was read.
                _ => decided.push(Decided::Nothing),
            }
        }
        encrypt(&self.crypto, left, &mut decided).await;
        decided
    }

    /// Compares plaintexts with the opened ciphertexts.
    async fn compare(&self, column: u16, rows: Vec<Row>) -> Vec<Decided> {
        let mut decided = Vec::with_capacity(rows.len());
        let mut both = Vec::with_capacity(rows.len());
        let layout = &self.walked.layouts[usize::from(column)];
        for mut bound in self.walked.bind(column, rows, &mut decided) {
            if bound.row.plain.is_none() {
                decided.push(Decided::Nothing);
                continue;
            }
            let Some(cipher) = bound.row.cipher.take() else {
                decided.push(Decided::Failed(bound.row, RowsError::NotBackfilled.into()));
                continue;
            };
            match Ciphertext::parse(cipher) {
                Ok(cipher) => both.push((bound, cipher)),
                Err(error) => decided.push(Decided::Failed(bound.row, Error::from(error).into())),
            }
        }
        for (bound, opened) in open(&self.crypto, both).await {
            let agrees = match (opened, &bound.row.plain) {
                (Ok(value), Some(plain)) => {
                    encoded(layout, plain).map(|plain| value.as_bytes() == plain.as_bytes())
                }
                (Ok(_), None) => Ok(false),
                (Err(error), _) => Err(error.into()),
            };
            decided.push(match agrees {
                Ok(true) if self.step == Step::Contract => Decided::Change(Change::emptied(bound.row)),
                Ok(true) => Decided::Verified,
                Ok(false) => Decided::Failed(bound.row, RowsError::Mismatch.into()),
                Err(error) => Decided::Failed(bound.row, error),
            });
        }
        decided
    }
}

#[async_trait]
impl Decide for Adopt {
    async fn decide(&self, column: u16, rows: Vec<Row>) -> Vec<Decided> {
        match self.step {
            Step::Backfill => self.encrypt(column, rows).await,
            Step::Contract | Step::Verify => self.compare(column, rows).await,
        }
    }
}

/// Decides like a contraction, and records it first. A dry run does not record it.
struct Contracting<'a>(&'a Adopt);

#[async_trait]
impl Decide for Contracting<'_> {
    async fn decide(&self, column: u16, rows: Vec<Row>) -> Vec<Decided> {
        let decided = self.0.compare(column, rows).await;
        if !decided
            .iter()
            .any(|decided| matches!(decided, Decided::Change(_)))
        {
            return decided;
        }
        let Err(error) = self.0.remember().await else {
            return decided;
        };
        let failed = decided.into_iter().map(|decided| match decided {
            Decided::Change(change) => Decided::Failed(change.row, error.clone()),
            other => other,
        });
        failed.collect()
    }
}

#[async_trait]
impl Walk for Adopt {
    type Item = Item;

    fn plan(&self) -> String {
        self.walked.plan(match self.step {
            Step::Backfill => "backfill",
            Step::Contract => "contract",
            Step::Verify => "verify",
        })
    }

    async fn read(
        &self,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
        limit: u32,
    ) -> Result<WalkPage<Item>, JobError> {
        if self.step == Step::Backfill {
            self.check().await?;
        }
        self.walked.read(after, upto, limit).await
    }

    fn weight(&self, item: &Item) -> u64 {
        Walked::weight(item)
    }

    async fn work(&self, items: Vec<Item>) -> Vec<WalkOutcome<Item>> {
        let mut outcomes = Vec::with_capacity(items.len());
        let Some(rows) = self.walked.readable(items, &mut outcomes) else {
            return outcomes;
        };
        match self.step {
            Step::Backfill => {
                let write = Write::FirstCipher;
                self.walked.work(rows, write, self, &mut outcomes).await;
            }
            Step::Contract => {
                let (write, decider) = (Write::NoPlain, Contracting(self));
                self.walked.work(rows, write, &decider, &mut outcomes).await;
            }
            Step::Verify => self.walked.look(rows, self, &mut outcomes).await,
        }
        outcomes
    }

    async fn inspect(&self, items: Vec<Item>) -> Vec<WalkOutcome<Item>> {
        let mut outcomes = Vec::with_capacity(items.len());
        let Some(rows) = self.walked.readable(items, &mut outcomes) else {
            return outcomes;
        };
        match self.step {
            // Pages list only rows with a plaintext and no ciphertext.
            Step::Backfill => outcomes.extend(rows.1.iter().map(|_| WalkOutcome::Changed)),
            Step::Contract | Step::Verify => self.walked.look(rows, self, &mut outcomes).await,
        }
        outcomes
    }
}

impl fmt::Debug for Adopt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adopt")
            .field("rows", &self.walked.rows)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}
