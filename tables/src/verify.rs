//! Opening every row of encrypted columns, as a job: it finds what cannot be read, and changes nothing.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use encx::jobs::{Job, JobError, Walk, WalkOutcome, WalkPage};
use encx::record::EncryptedColumn;
use encx::{Ciphertext, Crypto, Error};
use tokio::task::JoinSet;

use crate::cell::Id;
use crate::elsewhere::{Refused, Search};
use crate::error::RowsError;
use crate::layout::{Layout, Row};
use crate::rows::Rows;
use crate::sql::Filter;
use crate::walk::{Decide, Decided, Item, Walked, job_name};

/// Opens rows: see [`Rows::verify`].
pub struct Verify(Arc<Opener>);

/// Opens rows, and says why those that do not open do not.
pub(crate) struct Opener {
    crypto: Crypto,
    pub(crate) walked: Walked,
}

/// What the job is called, with the columns behind it.
const NAME: &str = "encx/verify";

/// How many rows a range holds.
const RANGE: u32 = 10_000;

impl Rows {
    /// Opens every ciphertext of these columns, in its own row, and names those that do not open. Writes nothing.
    ///
    /// What opens counts as unchanged. What does not counts as failed, and the report names it by table, column and row id,
    /// never by its value, and by the kind of fault ([`JobReport::faults`](encx::jobs::JobReport::faults)):
    ///
    /// | kind | the value |
    /// | --- | --- |
    /// | `missing-key` | names a data key that the key store does not have |
    /// | `suspended`, `compromised`, `destroyed` | is under a key in this state |
    /// | `damaged` | does not authenticate, and opens in none of the places that were tried |
    /// | `elsewhere` | belongs to another row, another of these columns, or another encryption context |
    /// | `plaintext` | is text, or empty: it was never encrypted |
    /// | `other-format` | is something else than a ciphertext |
    /// | `unreadable` | is of another type, or the database cannot read it |
    /// | `no-context` | stands in a row whose columns give no encryption context: one is NULL |
    ///
    /// Other kinds, `kms` and `store` above all, are failures of servers and not of rows. Where a value belongs is looked for in the
    /// other rows that were read with it, in the other given columns of its row, and in the encryption context of its key: a
    /// bounded number of tries.
    ///
    /// A [`census`](Self::census) counts all these rows too, but opens nothing. NULLs are left out, and so are columns that are
    /// bound to others, those of API tokens: the job does not know these others' types.
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
    ///     println!("{refused}"); // users.ssn of row 7: the value belongs elsewhere: it opens as users.ssn of row 8
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
        let opener = Opener::new(self, crypto, columns)?;
        let name = opener.walked.job_name(NAME);
        // Nothing is locked or written, so large ranges delay no one and cost fewer calls to the key store.
        Ok(Job::new(crypto, name, Verify(Arc::new(opener))).range_size(RANGE))
    }

    /// Returns the name of the job that verifies this column alone, by which
    /// [`JobStore::job`](encx::store::JobStore::job) tells when it ran last and what it found.
    ///
    /// # Errors
    ///
    /// [`RowsError::Description`] for a description that cannot be used.
    pub fn verify_job_name(column: &EncryptedColumn) -> Result<String, RowsError> {
        Ok(job_name(NAME, &[Layout::new(column.clone())?]))
    }
}

impl Opener {
    pub(crate) fn new(
        rows: &Rows,
        crypto: &Crypto,
        columns: impl IntoIterator<Item = EncryptedColumn>,
    ) -> Result<Self, RowsError> {
        let columns = columns.into_iter().filter(|column| column.bound.is_empty());
        let layouts = columns.map(Layout::new).collect::<Result<_, _>>()?;
        Ok(Self {
            crypto: crypto.clone(),
            walked: Walked::new(rows.clone(), layouts, Filter::Encrypted, false).whole(),
        })
    }

    /// Says of refused values why they do not open, each with its row.
    async fn explain(&self, column: u16, ids: &[Id], refused: Vec<Refused>, decided: &mut Vec<Decided>) {
        let place = (&*self.walked.layouts, usize::from(column));
        let mut search = match Search::new(&self.crypto, place, ids, &refused).await {
            Ok(search) => search,
            Err(error) => {
                let failed = refused.into_iter();
                decided.extend(failed.map(|of| Decided::Failed(of.bound.row, error.clone().into())));
                return;
            }
        };
        for refused in refused {
            let why = search.explain(&refused).await;
            decided.push(Decided::Failed(refused.bound.row, why.into()));
        }
    }
}

#[async_trait]
impl Decide for Opener {
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
                Err(error) => decided.push(Decided::Failed(bound.row, RowsError::NoCiphertext(error).into())),
            }
        }
        let items = sealed
            .iter()
            .map(|(bound, cipher)| (&bound.context, cipher, &bound.aad));
        let opened = self.crypto.decrypt_many(items).await;
        // The plaintexts are wiped before anything else is done.
        let errors: Vec<Option<Error>> = opened.into_iter().map(Result::err).collect();
        if errors.iter().all(Option::is_none) {
            decided.extend(sealed.iter().map(|_| Decided::Verified));
            return decided;
        }
        let mut order: Vec<_> = (0..sealed.len()).collect();
        order.sort_by(|a, b| sealed[*a].0.row.id.cmp(&sealed[*b].0.row.id));
        let ids: Vec<_> = order
            .iter()
            .map(|place| sealed[*place].0.row.id.clone())
            .collect();
        let mut places = vec![0; order.len()];
        for (at, place) in order.into_iter().enumerate() {
            places[place] = at;
        }
        let mut refused = Vec::new();
        for (((bound, cipher), error), at) in sealed.into_iter().zip(errors).zip(places) {
            match error {
                None => decided.push(Decided::Verified),
                Some(error) if error.is_retryable() => decided.push(Decided::Failed(bound.row, error.into())),
                Some(error) => refused.push(Refused {
                    bound,
                    cipher,
                    error,
                    at,
                }),
            }
        }
        self.explain(column, &ids, refused, &mut decided).await;
        decided
    }
}

#[async_trait]
impl Walk for Verify {
    type Item = Item;

    fn plan(&self) -> String {
        self.0.walked.plan("verify")
    }

    async fn read(
        &self,
        after: Option<&[u8]>,
        upto: Option<&[u8]>,
        limit: u32,
    ) -> Result<WalkPage<Item>, JobError> {
        self.0.walked.read(after, upto, limit).await
    }

    fn weight(&self, item: &Item) -> u64 {
        Walked::weight(item)
    }

    async fn work(&self, items: Vec<Item>) -> Vec<WalkOutcome<Item>> {
        let opener = Arc::clone(&self.0);
        // In a task of its own, so that the next page is read at the same time on another processor. The set ends the task if
        // the job is dropped.
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut outcomes = Vec::with_capacity(items.len());
            if let Some(rows) = opener.walked.readable(items, &mut outcomes) {
                opener.walked.look(rows, &*opener, &mut outcomes).await;
            }
            outcomes
        });
        match task.join_next().await {
            Some(Ok(outcomes)) => outcomes,
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime ends, and this run with it.
                Err(_) => std::future::pending().await,
            },
            None => Vec::new(),
        }
    }

    async fn inspect(&self, items: Vec<Item>) -> Vec<WalkOutcome<Item>> {
        self.work(items).await
    }
}

impl fmt::Debug for Verify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verify")
            .field("rows", &self.0.walked.rows)
            .finish_non_exhaustive()
    }
}
