//! Finding columns of ciphertexts, and how many rows one has.

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

/// How many values of a column are looked at.
const LOOKED_AT: u32 = 200;

/// A column with values that look like ciphertexts. From [`Rows::sealed_columns`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SealedColumn {
    /// The table's name in SQL, as a description has it: with its schema where the search path does not find it.
    pub table: String,
    /// The column's name in SQL.
    pub column: String,
    /// How many values were looked at: the first 200 that are not NULL.
    pub looked_at: u64,
    /// How many of them look like ciphertexts.
    pub sealed: u64,
    /// How many of these are under keys that the key store has.
    pub known_keys: u64,
    /// The schema; in SQLite `main`.
    schema: String,
    /// The table's own name.
    name: String,
    /// Whether the name alone finds the table.
    is_visible: bool,
    /// Whether names differ by case.
    has_case: bool,
}

impl SealedColumn {
    /// Tells whether a description is of this column, with or without the schema.
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
    /// Looks through the database's tables for columns whose values look like ciphertexts: in PostgreSQL `bytea` and domains
    /// over it, in SQLite every column. Compared with what is declared, it finds columns that a rotation would leave out.
    ///
    /// Of each column the first 200 values are looked at, by their first 18 bytes and their length: the version, a known suite, the
    /// id of a data key. Left out are the key store's own tables, views, and in PostgreSQL what the role may not read.
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

    /// Estimates how many ciphertexts a column has, for progress: PostgreSQL's planner knows, from the last `ANALYZE` or
    /// `VACUUM`; otherwise they are counted.
    ///
    /// # Errors
    ///
    /// Those of the database, and those about the column's name and type.
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
        // At most as many as were looked at.
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

/// Returns the id of the key if a value looks like a ciphertext.
fn key_of(glance: &Glance) -> Option<DataKeyId> {
    // Only the header and the length are looked at, so what follows may be anything.
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
        // Shorter than the shortest of its suite, or than a header.
        assert!(key_of(&glance(&head, 57)).is_none());
        head[1] = 1;
        assert!(key_of(&glance(&head, 89)).is_none());
        assert!(key_of(&glance(&head, 90)).is_some());
        assert!(key_of(&glance(&head[..10], 10)).is_none());
    }
}
