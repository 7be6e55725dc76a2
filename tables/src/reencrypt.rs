//! Re-encrypting rows under their context's active key, as a job.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use encx::jobs::{Job, JobError, Walk, WalkOutcome, WalkPage};
use encx::record::EncryptedColumn;
use encx::suite::Suite;
use encx::{Ciphertext, Crypto, EncryptionContext, Error};

use crate::error::RowsError;
use crate::layout::{HEADER, Layout, Row};
use crate::rows::Rows;
use crate::sql::{Filter, Write};
use crate::walk::{Bound, Contexts, Decide, Decided, Item, Walked, encrypt, job_name, open};

/// Re-encrypts rows: see [`Rows::reencrypt`].
pub struct Reencrypt {
    crypto: Crypto,
    walked: Walked,
}

/// The job's name, before those of the columns.
const NAME: &str = "encx/reencrypt";

impl Rows {
    /// Re-encrypts rows of these columns that are not under the active version of their context's key.
    ///
    /// Run it after a rotation, or before an old version is destroyed.
    ///
    /// Decrypts and encrypts each row under the context and AAD of its column's description. Writes it only
    /// if its ciphertext is unchanged, so concurrent writes of a service stay. A row that does not open is
    /// left as is and reported by its id, never by its value. Skips NULLs.
    ///
    /// Skips columns bound to others, such as those of API tokens, because the job does not know the other
    /// columns' types: the service must decrypt and encrypt these rows. A [`census`](Self::census) counts
    /// them.
    ///
    /// Any number of processes may run it at once and share the rows through `crypto`'s key store. In
    /// PostgreSQL a batch does not wait for locked rows, so it cannot deadlock.
    ///
    /// <div class="warning">
    ///
    /// A process that has not seen the rotation writes rows under the old version for up to its `state_ttl`,
    /// possibly behind the walk. Before a version is destroyed, run this again after that time, or check with
    /// a [`census`](Self::census) that no row is left.
    ///
    /// </div>
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
    /// let report = Rows::postgres(pool).reencrypt(&crypto, [ssn])?.throttle(1000).run().await;
    /// println!("{report}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RowsError::Description`] for an invalid description. The job checks whether the database has the
    /// columns.
    pub fn reencrypt(
        &self,
        crypto: &Crypto,
        columns: impl IntoIterator<Item = EncryptedColumn>,
    ) -> Result<Job<Reencrypt>, RowsError> {
        let columns = columns.into_iter().filter(|column| column.bound.is_empty());
        let layouts = columns.map(Layout::new).collect::<Result<_, _>>()?;
        let walked = Walked::new(self.clone(), layouts, Filter::Encrypted, false);
        let (name, walk_crypto) = (walked.job_name(NAME), crypto.clone());
        let walk = Reencrypt {
            crypto: walk_crypto,
            walked,
        };
        Ok(Job::new(crypto, name, walk))
    }

    /// Returns the name of the job that re-encrypts this column alone.
    ///
    /// [`JobStore::job`](encx::store::JobStore::job) returns its progress by this name.
    ///
    /// # Errors
    ///
    /// [`RowsError::Description`] for an invalid description.
    pub fn reencrypt_job_name(column: &EncryptedColumn) -> Result<String, RowsError> {
        Ok(job_name(NAME, &[Layout::new(column.clone())?]))
    }
}

impl Reencrypt {
    /// Separates rows that need re-encryption from the others, by their headers.
    async fn sort(&self, items: Vec<Item>, outcomes: &mut Vec<WalkOutcome<Item>>) -> (u16, Vec<Row>) {
        let Some((column, rows)) = self.walked.readable(items, outcomes) else {
            return (0, Vec::new());
        };
        let layout = &self.walked.layouts[usize::from(column)];
        let mut old = Vec::new();
        let (mut contexts, mut headers) = (Contexts::default(), Headers::default());
        for row in rows {
            let header = row.cipher.as_deref().unwrap_or_default();
            let needs = match contexts.of(layout, &row) {
                Ok(context) => headers
                    .needs(&self.crypto, &context, header)
                    .await
                    .map_err(JobError::from),
                Err(error) => Err(error),
            };
            match needs {
                Ok(true) => old.push(row),
                Ok(false) => outcomes.push(WalkOutcome::Unchanged),
                Err(error) => outcomes.push(self.walked.failed(column, row, error)),
            }
        }
        (column, old)
    }
}

#[async_trait]
impl Decide for Reencrypt {
    async fn decide(&self, column: u16, rows: Vec<Row>) -> Vec<Decided> {
        let mut decided = Vec::with_capacity(rows.len());
        let mut headers = Headers::default();
        let mut old: Vec<(Bound, Ciphertext)> = Vec::with_capacity(rows.len());
        for mut row in self.walked.bind(column, rows, &mut decided) {
            // Set to NULL since the page was read.
            let Some(bytes) = row.row.cipher.take() else {
                decided.push(Decided::Nothing);
                continue;
            };
            let needs = headers.needs(&self.crypto, &row.context, &bytes).await;
            match needs.and_then(|needs| Ok((needs, Ciphertext::parse(bytes)?))) {
                Ok((true, cipher)) => old.push((row, cipher)),
                // Another process has re-encrypted it.
                Ok((false, _)) => decided.push(Decided::Nothing),
                Err(error) => decided.push(Decided::Failed(row.row, error.into())),
            }
        }
        let mut values = Vec::with_capacity(old.len());
        for (row, opened) in open(&self.crypto, old).await {
            match opened {
                Ok(value) => values.push((row, Some(value))),
                Err(error) => decided.push(Decided::Failed(row.row, error.into())),
            }
        }
        encrypt(&self.crypto, values, &mut decided).await;
        decided
    }
}

/// Results for the headers of a page, of which there are few.
#[derive(Default)]
struct Headers(HashMap<(EncryptionContext, Vec<u8>), bool>);

impl Headers {
    /// Tells whether a ciphertext with this beginning needs re-encryption.
    async fn needs(
        &mut self,
        crypto: &Crypto,
        context: &EncryptionContext,
        cipher: &[u8],
    ) -> Result<bool, Error> {
        let header = cipher.get(..HEADER).unwrap_or(cipher).to_vec();
        let key = (context.clone(), header);
        if let Some(known) = self.0.get(&key) {
            return Ok(*known);
        }
        // Only the header is read, so the rest is padding of sufficient length.
        let mut stub = key.1.clone();
        if stub.len() == HEADER {
            stub.resize(Suite::KcXaes256Gcm.overhead(), 0);
        }
        let needs = crypto
            .needs_reencryption(context, &Ciphertext::parse(stub)?)
            .await?;
        self.0.insert(key, needs);
        Ok(needs)
    }
}

#[async_trait]
impl Walk for Reencrypt {
    type Item = Item;

    fn plan(&self) -> String {
        self.walked.plan("reencrypt")
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
        let old = self.sort(items, &mut outcomes).await;
        self.walked.work(old, Write::Cipher, self, &mut outcomes).await;
        outcomes
    }

    async fn inspect(&self, items: Vec<Item>) -> Vec<WalkOutcome<Item>> {
        let mut outcomes = Vec::with_capacity(items.len());
        let (_, old) = self.sort(items, &mut outcomes).await;
        outcomes.extend(old.iter().map(|_| WalkOutcome::Changed));
        outcomes
    }
}

impl fmt::Debug for Reencrypt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reencrypt")
            .field("rows", &self.walked.rows)
            .finish_non_exhaustive()
    }
}
