//! Row counts of the declared columns by key.

use std::collections::{BTreeMap, HashMap};

use anyhow::Result;
use encx::keys::DataKeyId;

use crate::receipts::Counted;
use crate::session::Session;

/// Row counts by key and column.
pub(crate) struct RowCounts(HashMap<DataKeyId, Vec<Counted>>);

impl RowCounts {
    /// Counts the rows of the declared columns. `None` if none is declared.
    pub(crate) async fn take(session: &Session) -> Result<Option<Self>> {
        let Some(census) = session.census().await? else {
            return Ok(None);
        };
        let mut by_key: HashMap<_, Vec<_>> = HashMap::new();
        for count in census.count().await? {
            let Some(key) = count.key else { continue };
            by_key.entry(key).or_default().push(Counted {
                table: count.table,
                column: count.column,
                rows: count.rows,
            });
        }
        Ok(Some(Self(by_key)))
    }

    /// Adds up the rows under these keys.
    pub(crate) fn under(&self, keys: impl IntoIterator<Item = DataKeyId>) -> Vec<Counted> {
        let mut sums: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for count in keys.into_iter().filter_map(|key| self.0.get(&key)).flatten() {
            *sums.entry((&count.table, &count.column)).or_default() += count.rows;
        }
        let counted = sums.into_iter().map(|((table, column), rows)| Counted {
            table: table.to_owned(),
            column: column.to_owned(),
            rows,
        });
        counted.collect()
    }
}

/// Formats counts as text.
pub(crate) fn describe_rows(rows: Option<&[Counted]>) -> String {
    match rows {
        None => "not counted".to_owned(),
        Some([]) => "none".to_owned(),
        Some(rows) => {
            let rows = rows
                .iter()
                .map(|count| format!("{} in {}.{}", count.rows, count.table, count.column));
            rows.collect::<Vec<_>>().join(", ")
        }
    }
}
