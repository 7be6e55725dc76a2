//! Opening random rows: a quick check that a column is readable.

use encx::Crypto;
use encx::jobs::{JobError, WalkOutcome};
use encx::record::EncryptedColumn;
use encx::store::JobFaults;

use crate::layout::{Layout, Read};
use crate::rows::Rows;
use crate::verify::Opener;
use crate::walk::Walked;

/// The most random rows per column.
const MAX_SAMPLE: u32 = 100_000;

/// How many rows and bytes are opened at once; the byte limit is approximate.
const AT_ONCE: usize = 500;
const MEMORY: u64 = 16 << 20;

/// How many faults of a column a report keeps in full.
const MAX_FAULTS: usize = 100;

/// The result of opening random rows of a column. From [`Rows::verify_sample`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SampledColumn {
    /// The table's name in SQL.
    pub table: String,
    /// The column's name in SQL.
    pub column: String,
    /// How many rows were opened: fewer than requested if the column has fewer.
    pub looked_at: u64,
    /// How many of them opened, or were deleted before they could be read.
    pub ok: u64,
    /// Rows that do not open, by kind: see [`Rows::verify`].
    pub faults: JobFaults,
    /// The errors of the first 100 rows that do not open.
    pub failures: Vec<RowFault>,
}

/// A row that does not open.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RowFault {
    /// The row's table, column and id.
    pub what: String,
    /// The reason.
    pub error: JobError,
}

impl Rows {
    /// Opens up to `rows` random rows of each of these columns and reports those that do not open.
    ///
    /// At most 100 000 rows per column; all rows are equally likely. The faults have the kinds of
    /// [`verify`](Self::verify). Changes nothing.
    ///
    /// The database reads the whole table to choose rows, without their values. Columns bound to others are
    /// skipped.
    ///
    /// ```no_run
    /// # async fn example(pool: sqlx::PgPool, crypto: encx::Crypto) -> Result<(), encx::jobs::JobError> {
    /// use encx::record::{EncryptedColumn, RowIdKind};
    /// use encx_tables::Rows;
    ///
    /// let ssn = EncryptedColumn::new("users", "ssn")
    ///     .row_id("id", RowIdKind::Integer)
    ///     .context_column("tenantId", "tenant_id");
    /// for column in Rows::postgres(pool).verify_sample(&crypto, [ssn], 1000).await? {
    ///     println!("{}.{}: {} of {} rows open", column.table, column.column, column.ok, column.looked_at);
    ///     for (kind, fault) in column.faults.iter() {
    ///         println!("{kind}: {} rows, such as {}", fault.items, fault.examples[0]);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RowsError::Description`](crate::RowsError::Description) for an invalid description; errors in the
    /// columns' names and types; any retryable error of the database, the key store or the KMS.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn verify_sample(
        &self,
        crypto: &Crypto,
        columns: impl IntoIterator<Item = EncryptedColumn>,
        rows: u32,
    ) -> Result<Vec<SampledColumn>, JobError> {
        let verify = Opener::new(self, crypto, columns)?;
        let mut sampled = Vec::with_capacity(verify.walked.layouts.len());
        for (column, layout) in (0..).zip(&verify.walked.layouts) {
            self.check(layout, false).await?;
            let heads = self.sample(layout, rows.clamp(1, MAX_SAMPLE)).await?;
            sampled.push(open(&verify, column, layout, heads).await?);
        }
        Ok(sampled)
    }
}

/// Opens rows whose heads were read, in bounded batches.
async fn open(
    verify: &Opener,
    column: u16,
    layout: &Layout,
    heads: Vec<Read>,
) -> Result<SampledColumn, JobError> {
    let mut sampled = SampledColumn {
        table: layout.described.sql_table.clone(),
        column: layout.described.sql_column.clone(),
        looked_at: 0,
        ok: 0,
        faults: JobFaults::default(),
        failures: Vec::new(),
    };
    let mut heads = Walked::items(column, heads).into_iter().peekable();
    while heads.peek().is_some() {
        let (mut batch, mut weight) = (Vec::new(), 0);
        while let Some(item) = heads.next_if(|_| batch.len() < AT_ONCE && weight < MEMORY) {
            weight += Walked::weight(&item);
            batch.push(item);
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        if let Some(rows) = verify.walked.readable(batch, &mut outcomes) {
            verify.walked.look(rows, verify, &mut outcomes).await;
        }
        for outcome in outcomes {
            sampled.looked_at += 1;
            match outcome {
                WalkOutcome::Failed { what, error } => {
                    sampled.faults.add(error.kind(), &what);
                    if sampled.failures.len() < MAX_FAULTS {
                        sampled.failures.push(RowFault { what, error });
                    }
                }
                WalkOutcome::Retry { error, .. } => return Err(error),
                _ => sampled.ok += 1,
            }
        }
    }
    Ok(sampled)
}
