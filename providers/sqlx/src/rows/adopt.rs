//! From a plaintext column to an encrypted one, while services read and write it: backfill, verify, contract.

use std::fmt;

use async_trait::async_trait;
use encx::{
    AsAad, Ciphertext, Crypto, Encoded, EncryptedColumn, EncryptionContext, Error, FieldCodec, Job, JobError,
    Walk, WalkOutcome, WalkPage,
};

use super::cell::Cell;
use super::ident::Ident;
use super::layout::{Layout, Plain, PlainKind, Row};
use super::sql::{Filter, Write};
use super::walk::{Bound, Contexts, Decide, Decided, Item, Walked, by_context, encrypt};
use super::{Change, Rows, RowsError};

/// A column of plaintexts that is to be encrypted, each as `#[derive(Encrypt)]` encodes a field of that type.
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

    /// Describes a column of UUIDs: `uuid`; in SQLite 16 bytes or text.
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
/// 1. *Expand*: add the encrypted column, which may be NULL. Deploy a service that writes both columns in one statement and
///    reads with [`read_either`]. Wait until no older one runs.
/// 2. [`backfill`](Self::backfill) encrypts what is there. [`verify`](Self::verify) opens every row and compares.
/// 3. Deploy a service that reads and writes the encrypted column alone, and sets the plaintext to NULL where it writes.
///    Wait again until no older one runs.
/// 4. *Contract*: [`contract`](Self::contract) sets plaintexts to NULL, each where its ciphertext opens to it. Then drop the
///    column, and rewrite the table where the database leaves old rows behind (`VACUUM FULL`, or time).
///
/// Each is a [`Job`]: it can be stopped, resumed, throttled and shared, and each step can be repeated.
#[derive(Clone, Debug)]
pub struct Adoption {
    rows: Rows,
    crypto: Crypto,
    layout: Layout,
}

impl Rows {
    /// Prepares the steps from a plaintext column to an encrypted one in the same table.
    ///
    /// # Errors
    ///
    /// [`RowsError::Description`] for a description that cannot be used.
    pub fn adopt(
        &self,
        crypto: &Crypto,
        plaintext: PlaintextColumn,
        encrypted: EncryptedColumn,
    ) -> Result<Adoption, RowsError> {
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
        Ok(Adoption { rows, crypto, layout })
    }
}

impl Adoption {
    /// Encrypts every plaintext that has no ciphertext beside it.
    ///
    /// A row is written only if its plaintext is still the one that was read and it still has no ciphertext: what a service
    /// writes at the same time stays. The plaintext stays where it is.
    ///
    /// <div class="warning">
    ///
    /// It encrypts whatever stands in the plaintext column: whoever can write the database has values of their own
    /// encrypted, in whichever row. Never run it again once services read the ciphertext alone.
    ///
    /// </div>
    pub fn backfill(&self) -> Job<Adopt> {
        self.job("encx/backfill", Step::Backfill)
    }

    /// Opens every ciphertext that has a plaintext beside it, and compares the two. Changes nothing.
    ///
    /// What agrees counts as unchanged; what does not, [`RowsError::Mismatch`], and what was not backfilled,
    /// [`RowsError::NotBackfilled`], as failed.
    pub fn verify(&self) -> Job<Adopt> {
        self.job("encx/verify-adoption", Step::Verify)
    }

    /// Sets every plaintext to NULL whose ciphertext opens to it. The others are reported and stay.
    ///
    /// <div class="warning">
    ///
    /// From here on the data lives in its ciphertexts alone. Before, take a backup of the key store and know that its KEKs
    /// are safe.
    ///
    /// </div>
    pub fn contract(&self) -> Job<Adopt> {
        self.job("encx/contract", Step::Contract)
    }

    fn job(&self, name: &str, step: Step) -> Job<Adopt> {
        let filter = match step {
            Step::Backfill => Filter::NotYetEncrypted,
            Step::Contract | Step::Verify => Filter::Plain,
        };
        let layouts = vec![self.layout.clone()];
        let walked = Walked::new(self.rows.clone(), layouts, filter, step == Step::Contract);
        let (name, crypto) = (walked.job_name(name), self.crypto.clone());
        self.crypto.job(name, Adopt { crypto, walked, step })
    }
}

/// Reads a value that is encrypted already or not yet: the ciphertext if there is one, else the plaintext.
///
/// For the time in which a table is moved from one to the other; see [`Adoption`].
///
/// <div class="warning">
///
/// Whoever can write the database can put a plaintext of their own in the place of a ciphertext for as long as this is in
/// use. Go back to `decrypt` once all rows are encrypted.
///
/// </div>
///
/// # Errors
///
/// As [`Crypto::decrypt`], and [`Error::Codec`] if the bytes are no value of this type.
///
/// # Cancellation
///
/// As [`Crypto::decrypt`].
pub async fn read_either<T: FieldCodec>(
    crypto: &Crypto,
    context: &EncryptionContext,
    ciphertext: Option<&Ciphertext>,
    plaintext: Option<T>,
    aad: impl AsAad,
) -> Result<Option<T>, Error> {
    match ciphertext {
        None => Ok(plaintext),
        Some(ciphertext) => {
            let value = crypto.decrypt(context, ciphertext, aad).await?;
            Ok(Some(T::decode(value.as_bytes())?))
        }
    }
}

/// A step of an adoption: see [`Adoption`].
pub struct Adopt {
    crypto: Crypto,
    walked: Walked,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Backfill,
    Contract,
    Verify,
}

/// Gives the bytes that stand for a plaintext, as `#[derive(Encrypt)]` encodes a field of that type.
fn encoded(layout: &Layout, plain: &Cell) -> Result<Encoded<'static>, JobError> {
    let kind = layout.plain.as_ref().map(|plain| plain.kind);
    let uuid = plain.as_uuid().filter(|_| kind == Some(PlainKind::Uuid));
    let bytes = match (plain, &uuid) {
        (_, Some(uuid)) | (Cell::Uuid(uuid), None) => uuid.encode(),
        (Cell::Bytes(value), None) => value.encode(),
        (Cell::Integer(value), None) => value.encode(),
        (Cell::Text(value), None) => value.encode(),
    };
    let bytes = bytes.map_err(Error::from)?;
    Ok(Encoded::owned(bytes.as_bytes().to_vec()))
}

impl Adopt {
    fn bind(&self, column: u16, rows: Vec<Row>, decided: &mut Vec<Decided>) -> Vec<Bound> {
        let layout = &self.walked.layouts[usize::from(column)];
        let mut contexts = Contexts::default();
        let mut bound = Vec::with_capacity(rows.len());
        for row in rows {
            match contexts.bind(layout, row) {
                Ok(row) => bound.push(row),
                Err(failed) => decided.push(Decided::Failed(failed.0, failed.1)),
            }
        }
        by_context(&mut bound);
        bound
    }

    /// Encrypts plaintexts that have no ciphertext.
    async fn encrypt(&self, column: u16, rows: Vec<Row>) -> Vec<Decided> {
        let mut decided = Vec::with_capacity(rows.len());
        let bound = self.bind(column, rows, &mut decided);
        let layout = &self.walked.layouts[usize::from(column)];
        let mut left = Vec::with_capacity(bound.len());
        for bound in bound {
            match (&bound.row.cipher, &bound.row.plain) {
                (None, Some(plain)) => match encoded(layout, plain) {
                    Ok(value) => left.push((bound, value)),
                    Err(error) => decided.push(Decided::Failed(bound.row, error)),
                },
                // Written, or made NULL, meanwhile.
                _ => decided.push(Decided::Nothing),
            }
        }
        encrypt(&self.crypto, left, &mut decided).await;
        decided
    }

    /// Compares plaintexts with what their ciphertexts open to.
    async fn compare(&self, column: u16, rows: Vec<Row>) -> Vec<Decided> {
        let mut decided = Vec::with_capacity(rows.len());
        let mut both = Vec::with_capacity(rows.len());
        let layout = &self.walked.layouts[usize::from(column)];
        for bound in self.bind(column, rows, &mut decided) {
            match (&bound.row.cipher, &bound.row.plain) {
                (_, None) => decided.push(Decided::Nothing),
                (None, Some(_)) => decided.push(Decided::Failed(bound.row, RowsError::NotBackfilled.into())),
                (Some(cipher), Some(plain)) => {
                    let cipher = Ciphertext::parse(cipher.clone()).map_err(|error| Error::from(error).into());
                    match cipher.and_then(|cipher| Ok((cipher, encoded(layout, plain)?))) {
                        Ok((cipher, plain)) => both.push((bound, cipher, plain)),
                        Err(error) => decided.push(Decided::Failed(bound.row, error)),
                    }
                }
            }
        }
        let sealed: Vec<_> = both
            .iter()
            .map(|(bound, cipher, _)| (&bound.context, cipher, &bound.aad))
            .collect();
        let opened = self.crypto.decrypt_many(sealed).await;
        for ((bound, _, plain), opened) in both.into_iter().zip(opened) {
            let agrees = opened.map(|value| value.as_bytes() == plain.as_bytes());
            decided.push(match agrees {
                Ok(true) if self.step == Step::Contract => Decided::Change(Change::emptied(bound.row)),
                Ok(true) => Decided::Verified,
                Ok(false) => Decided::Failed(bound.row, RowsError::Mismatch.into()),
                Err(error) => Decided::Failed(bound.row, error.into()),
            });
        }
        decided
    }

    /// Reads rows in full, and says what would be done with them.
    async fn look(&self, items: Vec<Item>) -> Vec<WalkOutcome<Item>> {
        let Some(column) = items.first().map(|item| item.column) else {
            return Vec::new();
        };
        let layout = &self.walked.layouts[usize::from(column)];
        let rows: Vec<_> = items.into_iter().map(|item| item.row).collect();
        let ids: Vec<_> = rows.iter().map(|row| &row.id).collect();
        let found = match self.walked.rows.fetch(layout, &ids).await {
            Ok(found) => found,
            Err(error) => {
                let error = JobError::from(error);
                let failed = rows
                    .into_iter()
                    .map(|row| self.walked.failed(column, row, error.clone()));
                return failed.collect();
            }
        };
        let gone = found.iter().filter(|row| row.is_none()).count();
        let mut outcomes: Vec<_> = (0..gone).map(|_| WalkOutcome::Overtaken).collect();
        for decided in self.compare(column, found.into_iter().flatten().collect()).await {
            outcomes.push(match decided {
                Decided::Change(_) => WalkOutcome::Changed,
                Decided::Failed(row, error) => self.walked.failed(column, row, error),
                Decided::Nothing => WalkOutcome::Overtaken,
                Decided::Verified => WalkOutcome::Unchanged,
            });
        }
        outcomes
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
        self.walked.read(after, upto, limit).await
    }

    async fn work(&self, items: Vec<Item>) -> Vec<WalkOutcome<Item>> {
        let mut outcomes = Vec::with_capacity(items.len());
        let write = match self.step {
            Step::Backfill => Write::FirstCipher,
            Step::Contract => Write::NoPlain,
            Step::Verify => return self.look(items).await,
        };
        self.walked.work(items, write, self, &mut outcomes).await;
        outcomes
    }

    async fn inspect(&self, items: Vec<Item>) -> Vec<WalkOutcome<Item>> {
        match self.step {
            // Those that a page lists have a plaintext and no ciphertext.
            Step::Backfill => items.iter().map(|_| WalkOutcome::Changed).collect(),
            Step::Contract | Step::Verify => self.look(items).await,
        }
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
