//! Encrypting rows anew under their context's active key, as a job.

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

/// Encrypts rows anew: see [`Rows::reencrypt`].
pub struct Reencrypt {
    crypto: Crypto,
    walked: Walked,
}

/// What the job is called, with the columns behind it.
const NAME: &str = "encx/reencrypt";

impl Rows {
    /// Encrypts the rows of these columns anew that are not under the active version of their context's key, such as after
    /// a rotation or before an old version is destroyed.
    ///
    /// Each row is decrypted and encrypted under the context and the AAD that its column's description gives it, and
    /// written only if its ciphertext is still the one that was read: what a service writes at the same time stays. A row
    /// that does not open is reported, by its id and never by its value, and left as it is. NULLs are left out.
    ///
    /// Columns that are bound to others, those of API tokens, are left out too, because the job does not know these others'
    /// types: have the service decrypt and encrypt such rows. A [`census`](Self::census) counts them.
    ///
    /// Any number of processes may run it at once, and share the rows through `crypto`'s key store. In PostgreSQL a batch
    /// waits for no row that others have locked, so it takes part in no deadlock.
    ///
    /// <div class="warning">
    ///
    /// For as long as its `state_ttl` a process that has not seen the rotation writes rows under the old version, and it
    /// may write where the walk has been. Run this once more after that time, or see by a [`census`](Self::census) that
    /// nothing is left, before a version is destroyed.
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
    /// [`RowsError::Description`] for a description that cannot be used. Whether the database has such columns, the job
    /// finds out.
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

    /// Returns the name of the job that re-encrypts this column alone, by which
    /// [`JobStore::job`](encx::store::JobStore::job) tells how far it is.
    ///
    /// # Errors
    ///
    /// [`RowsError::Description`] for a description that cannot be used.
    pub fn reencrypt_job_name(column: &EncryptedColumn) -> Result<String, RowsError> {
        Ok(job_name(NAME, &[Layout::new(column.clone())?]))
    }
}

impl Reencrypt {
    /// Tells rows that need nothing from those that do, by their headers alone.
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
            // It became NULL since the page was read.
            let Some(bytes) = row.row.cipher.take() else {
                decided.push(Decided::Nothing);
                continue;
            };
            let needs = headers.needs(&self.crypto, &row.context, &bytes).await;
            match needs.and_then(|needs| Ok((needs, Ciphertext::parse(bytes)?))) {
                Ok((true, cipher)) => old.push((row, cipher)),
                // Another process encrypted it anew since.
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

/// What is known of the headers of a page, which are few.
#[derive(Default)]
struct Headers(HashMap<(EncryptionContext, Vec<u8>), bool>);

impl Headers {
    /// Tells whether a ciphertext that begins like this is to be encrypted anew.
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
        // The header is all that is looked at, so what follows may be anything of a length that is long enough.
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
