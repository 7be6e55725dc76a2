//! Finding ciphertext columns, and estimating their rows.

use std::collections::BTreeSet;

use encx::Ciphertext;
use encx::keys::DataKeyId;
use encx::record::EncryptedColumn;
use encx::store::KeyStore;
use encx::suite::Suite;

use crate::catalog::{self, Candidate, Glance};
use crate::error::RowsError;
use crate::ident::Ident;
use crate::layout::{HEADER, Layout};
use crate::rows::Rows;

/// Values examined per column.
const LOOKED_AT: u32 = 200;

/// A column with values that look like ciphertexts. From [`Rows::sealed_columns`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealedColumn {
    /// The table's name in SQL, with its schema unless the search path finds it.
    pub table: String,
    /// The column's name in SQL.
    pub column: String,
    /// How many values were examined: the first 200 that are not NULL; in SQLite, the first 200 blobs.
    pub looked_at: u64,
    /// How many of them look like ciphertexts.
    pub sealed: u64,
    /// How many of these are under keys in the key store.
    pub known_keys: u64,
    /// The schema; `main` in SQLite.
    schema: String,
    /// The table's unquoted name.
    name: String,
    /// Whether the search path finds the table by name.
    is_visible: bool,
    /// Whether names are case-sensitive.
    has_case: bool,
}

impl SealedColumn {
    /// Tells whether a description refers to this column, with or without the schema.
    #[must_use]
    pub fn is(&self, described: &EncryptedColumn) -> bool {
        let same = |a: &str, b: &str| match self.has_case {
            true => a == b,
            false => a.eq_ignore_ascii_case(b),
        };
        let (schema, table) = Ident::split(&described.sql_table);
        let schema = match &schema {
            Some(schema) => same(schema, &self.schema),
            None => self.is_visible,
        };
        schema && same(&table, &self.name) && same(&described.sql_column, &self.column)
    }
}

impl Rows {
    /// Finds columns whose values look like ciphertexts.
    ///
    /// Examines `bytea` and domains over it in PostgreSQL, every column in SQLite. Compare with the declared
    /// columns to find those that a rotation would miss.
    ///
    /// Examines the first 200 values of each column, by their first 18 bytes (the version, a known suite, a
    /// data key id) and their length. Skips the key store's own tables, views, and in PostgreSQL anything the
    /// role cannot read.
    ///
    /// ```no_run
    /// # async fn example(pool: sqlx::PgPool, crypto: encx::Crypto) -> Result<(), encx_tables::RowsError> {
    /// use encx::record::{EncryptedColumn, RowIdKind};
    /// use encx_tables::Rows;
    ///
    /// let declared = [EncryptedColumn::new("users", "ssn").row_id("id", RowIdKind::Integer)];
    /// for found in Rows::postgres(pool).sealed_columns(&crypto.key_store()).await? {
    ///     if !declared.iter().any(|column| found.is(column)) {
    ///         println!("{}.{} is not declared", found.table, found.column);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`RowsError::Database`]; [`RowsError::Encx`] if the key store failed.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn sealed_columns(&self, store: &dyn KeyStore) -> Result<Vec<SealedColumn>, RowsError> {
        let mut columns = Vec::new();
        for candidate in catalog::candidates(&self.pool).await? {
            let (table, column) = (
                Ident::joined(Some(&candidate.schema), &candidate.table),
                &candidate.column,
            );
            let (table, column) = (Ident::table(&table)?, Ident::column(column)?);
            let glances = catalog::glances(&self.pool, &table, &column, LOOKED_AT).await?;
            let keys: Vec<_> = glances.iter().filter_map(key_of).collect();
            if keys.is_empty() {
                continue;
            }
            let ids: BTreeSet<_> = keys.iter().copied().collect();
            let ids: Vec<_> = ids.into_iter().collect();
            let records = store.get(&ids).await.map_err(encx::Error::from)?;
            let is_known = |id: &&DataKeyId| records.iter().any(|record| record.id == **id);
            let (looked_at, sealed, known) =
                (glances.len(), keys.len(), keys.iter().filter(is_known).count());
            columns.push(SealedColumn::new(candidate, [looked_at, sealed, known]));
        }
        Ok(columns)
    }

    /// Estimates how many ciphertexts a column has, for progress.
    ///
    /// Uses the estimate of PostgreSQL's planner, from the last `ANALYZE` or `VACUUM`; otherwise counts them.
    ///
    /// # Errors
    ///
    /// Database errors, and errors in the column's name and type.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn estimated_rows(&self, column: &EncryptedColumn) -> Result<u64, RowsError> {
        let layout = Layout::new(column.clone())?;
        self.check(&layout, false).await?;
        let rows = catalog::estimate(&self.pool, &layout).await?;
        Ok(u64::try_from(rows).unwrap_or_default())
    }
}

impl SealedColumn {
    fn new(found: Candidate, counts: [usize; 3]) -> Self {
        // At most `LOOKED_AT`.
        let [looked_at, sealed, known_keys] = counts.map(|count| count as u64);
        let schema = Some(&*found.schema).filter(|_| !found.is_visible);
        Self {
            table: Ident::joined(schema, &found.table),
            column: found.column,
            looked_at,
            sealed,
            known_keys,
            schema: found.schema,
            name: found.table,
            is_visible: found.is_visible,
            has_case: found.has_case,
        }
    }
}

/// Returns the key id if a value looks like a ciphertext.
fn key_of(glance: &Glance) -> Option<DataKeyId> {
    // Only the header and the length are checked, so the rest is padding.
    let len = usize::try_from(glance.len).ok()?;
    let mut stub = glance.head.clone();
    if stub.len() == HEADER && len > HEADER {
        let longest = Suite::ALL.into_iter().map(Suite::overhead).max()?;
        stub.resize(len.min(longest), 0);
    }
    Ciphertext::parse(stub).ok().map(|cipher| cipher.key_id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_by_its_head_and_its_length() {
        let mut head = vec![1, 2];
        head.extend(DataKeyId::generate(1, None).unwrap().to_bytes());
        let glance = |head: &[u8], len| Glance {
            head: head.to_vec(),
            len,
        };
        assert!(key_of(&glance(&head, 58)).is_some());
        assert!(key_of(&glance(&head, 5_000_000)).is_some());
        for (at, byte) in [(0, 2), (1, 3), (8, 0x40), (10, 0)] {
            let mut other = head.clone();
            other[at] = byte;
            assert!(key_of(&glance(&other, 100)).is_none(), "{at}");
        }
        // Shorter than the suite's minimum, or than a header.
        assert!(key_of(&glance(&head, 57)).is_none());
        head[1] = 1;
        assert!(key_of(&glance(&head, 89)).is_none());
        assert!(key_of(&glance(&head, 90)).is_some());
        assert!(key_of(&glance(&head[..10], 10)).is_none());
    }
}
