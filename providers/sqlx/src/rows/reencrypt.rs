//! Encrypting rows anew under their context's active key, as a job.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use encx::{
    Ciphertext, Crypto, EncryptedColumn, EncryptionContext, Error, Job, JobError, Suite, Walk, WalkOutcome,
    WalkPage,
};

use super::layout::{Layout, Row};
use super::sql::{Filter, Write};
use super::walk::{Bound, Contexts, Decide, Decided, Item, Walked, by_context, encrypt};
use super::{Rows, RowsError};

/// The bytes of a ciphertext that say how it was encrypted: version, suite and key.
const HEADER: usize = 18;

/// Encrypts rows anew: see [`Rows::reencrypt`].
pub struct Reencrypt {
    crypto: Crypto,
    walked: Walked,
}

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
    /// # async fn example(pool: sqlx::PgPool, crypto: encx::Crypto) -> Result<(), encx_sqlx::RowsError> {
    /// use encx::{EncryptedColumn, RowIdKind};
    /// use encx_sqlx::Rows;
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
        let (name, walk_crypto) = (walked.job_name("encx/reencrypt"), crypto.clone());
        let walk = Reencrypt {
            crypto: walk_crypto,
            walked,
        };
        Ok(crypto.job(name, walk))
    }
}

impl Reencrypt {
    /// Tells rows that need nothing from those that do, by their headers alone.
    async fn sort(&self, items: Vec<Item>) -> (Vec<Item>, Vec<WalkOutcome<Item>>) {
        let (mut old, mut outcomes) = (Vec::new(), Vec::new());
        let (mut contexts, mut headers) = (Contexts::default(), Headers::default());
        for item in items {
            let layout = &self.walked.layouts[usize::from(item.column)];
            let header = item.row.cipher.as_deref().unwrap_or_default();
            let needs = match contexts.of(layout, &item.row) {
                Ok(context) => headers
                    .needs(&self.crypto, &context, header)
                    .await
                    .map_err(JobError::from),
                Err(error) => Err(error),
            };
            match needs {
                Ok(true) => old.push(item),
                Ok(false) => outcomes.push(WalkOutcome::Unchanged),
                Err(error) => outcomes.push(self.walked.failed(item.column, item.row, error)),
            }
        }
        (old, outcomes)
    }
}

#[async_trait]
impl Decide for Reencrypt {
    async fn decide(&self, column: u16, rows: Vec<Row>) -> Vec<Decided> {
        let layout = &self.walked.layouts[usize::from(column)];
        let mut decided = Vec::with_capacity(rows.len());
        let (mut contexts, mut headers) = (Contexts::default(), Headers::default());
        let mut bound: Vec<Bound> = Vec::with_capacity(rows.len());
        for row in rows {
            match contexts.bind(layout, row) {
                Ok(row) => bound.push(row),
                Err(failed) => decided.push(Decided::Failed(failed.0, failed.1)),
            }
        }
        by_context(&mut bound);
        let mut old: Vec<(Bound, Ciphertext)> = Vec::with_capacity(bound.len());
        for row in bound {
            // It became NULL meanwhile.
            let Some(bytes) = &row.row.cipher else {
                decided.push(Decided::Nothing);
                continue;
            };
            let needs = headers.needs(&self.crypto, &row.context, bytes).await;
            match needs.and_then(|needs| Ok((needs, Ciphertext::parse(bytes.clone())?))) {
                Ok((true, cipher)) => old.push((row, cipher)),
                // Somebody wrote it anew meanwhile.
                Ok((false, _)) => decided.push(Decided::Nothing),
                Err(error) => decided.push(Decided::Failed(row.row, error.into())),
            }
        }
        let sealed: Vec<_> = old
            .iter()
            .map(|(row, cipher)| (&row.context, cipher, &row.aad))
            .collect();
        let opened = self.crypto.decrypt_many(sealed).await;
        let mut values = Vec::with_capacity(old.len());
        for ((row, _), opened) in old.into_iter().zip(opened) {
            match opened {
                Ok(value) => values.push((row, value)),
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

    async fn work(&self, items: Vec<Item>) -> Vec<WalkOutcome<Item>> {
        let (old, mut outcomes) = self.sort(items).await;
        self.walked.work(old, Write::Cipher, self, &mut outcomes).await;
        outcomes
    }

    async fn inspect(&self, items: Vec<Item>) -> Vec<WalkOutcome<Item>> {
        let (old, mut outcomes) = self.sort(items).await;
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
