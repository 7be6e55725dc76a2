//! Opening every row of encrypted columns, as a job: it finds what nobody could read, and changes nothing.

use std::fmt;

use async_trait::async_trait;
use encx::jobs::{Job, JobError, Walk, WalkOutcome, WalkPage};
use encx::record::EncryptedColumn;
use encx::{Ciphertext, Crypto, Error};

use crate::error::RowsError;
use crate::layout::{Layout, Row};
use crate::rows::Rows;
use crate::sql::Filter;
use crate::walk::{Decide, Decided, Item, Walked, open};

/// Opens rows: see [`Rows::verify`].
pub struct Verify {
    crypto: Crypto,
    walked: Walked,
}

impl Rows {
    /// Opens every ciphertext of these columns, in its own row, and names those that do not open. Writes nothing.
    ///
    /// What opens counts as unchanged. What does not counts as failed, and the report names it by table, column and row id,
    /// never by its value: values that were damaged or copied from another row, plaintexts in the column, and rows that
    /// an `INSERT .. ON CONFLICT DO UPDATE` kept under their own id with a value that is bound to another one. A
    /// [`census`](Self::census) counts these too, but opens nothing. NULLs are left out, and so are columns that are bound to
    /// others, those of API tokens: the job does not know these others' types.
    ///
    /// ```no_run
    /// # async fn example(pool: sqlx::PgPool, crypto: encx::Crypto) -> Result<(), encx_tables::RowsError> {
    /// use encx::record::{EncryptedColumn, RowIdKind};
    /// use encx_tables::Rows;
    ///
    /// let ssn = EncryptedColumn::new("users", "ssn")
    ///     .row_id("id", RowIdKind::Integer)
    ///     .context_column("tenantId", "tenant_id")
    ///     .context_value("purpose", "pii");
    /// let report = Rows::postgres(pool).verify(&crypto, [ssn])?.throttle(1000).run().await;
    /// for refused in &report.failures {
    ///     println!("{refused}"); // users.ssn of row 7: the ciphertext does not authenticate: ..
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RowsError::Description`] for a description that cannot be used. Whether the database has such columns, the job
    /// finds out.
    pub fn verify(
        &self,
        crypto: &Crypto,
        columns: impl IntoIterator<Item = EncryptedColumn>,
    ) -> Result<Job<Verify>, RowsError> {
        let columns = columns.into_iter().filter(|column| column.bound.is_empty());
        let layouts = columns.map(Layout::new).collect::<Result<_, _>>()?;
        let walked = Walked::new(self.clone(), layouts, Filter::Encrypted, false);
        let (name, walk_crypto) = (walked.job_name("encx/verify"), crypto.clone());
        let walk = Verify {
            crypto: walk_crypto,
            walked,
        };
        Ok(Job::new(crypto, name, walk))
    }
}

#[async_trait]
impl Decide for Verify {
    async fn decide(&self, column: u16, rows: Vec<Row>) -> Vec<Decided> {
        let mut decided = Vec::with_capacity(rows.len());
        let mut sealed = Vec::with_capacity(rows.len());
        for mut bound in self.walked.bind(column, rows, &mut decided) {
            // It became NULL since the page was read.
            let Some(cipher) = bound.row.cipher.take() else {
                decided.push(Decided::Nothing);
                continue;
            };
            match Ciphertext::parse(cipher) {
                Ok(cipher) => sealed.push((bound, cipher)),
                Err(error) => decided.push(Decided::Failed(bound.row, Error::from(error).into())),
            }
        }
        for (bound, opened) in open(&self.crypto, sealed).await {
            decided.push(match opened {
                Ok(_) => Decided::Verified,
                Err(error) => Decided::Failed(bound.row, error.into()),
            });
        }
        decided
    }
}

#[async_trait]
impl Walk for Verify {
    type Item = Item;

    fn plan(&self) -> String {
        self.walked.plan("verify")
    }

    async fn read(
        &self,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
        limit: u32,
    ) -> Result<WalkPage<Item>, JobError> {
        self.walked.read(after, upto, limit).await
    }

    fn weight(&self, item: &Item) -> u64 {
        Walked::weight(item)
    }

    async fn work(&self, items: Vec<Item>) -> Vec<WalkOutcome<Item>> {
        let mut outcomes = Vec::with_capacity(items.len());
        if let Some(rows) = self.walked.readable(items, &mut outcomes) {
            self.walked.look(rows, self, &mut outcomes).await;
        }
        outcomes
    }

    async fn inspect(&self, items: Vec<Item>) -> Vec<WalkOutcome<Item>> {
        self.work(items).await
    }
}

impl fmt::Debug for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verify")
            .field("rows", &self.walked.rows)
            .finish_non_exhaustive()
    }
}
