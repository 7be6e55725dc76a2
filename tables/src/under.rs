//! Trying to open rows under one data key, such as a destroyed one.

use encx::jobs::JobError;
use encx::keys::DataKeyId;
use encx::record::EncryptedColumn;
use encx::{Ciphertext, Crypto, EncryptionContext, Error};

use crate::error::RowsError;
use crate::layout::{Layout, Row};
use crate::rows::{Pool, Rows};

/// A row that [`Rows::try_open_under`] tried to open.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TriedRow {
    /// The table, the column and the row's id.
    pub row: String,
    /// Whether it opened, or why not.
    pub opened: Result<(), JobError>,
}

impl Rows {
    /// Tries to open at most `limit` rows of a column under one data key, in the key's encryption context.
    ///
    /// Shows that a key is gone: after a shredding every row returns [`Error::Shredded`] or
    /// [`Error::Destroyed`]. The database chooses the rows. One value is in memory at a time, and opened
    /// values are dropped.
    ///
    /// A column [bound](EncryptedColumn::bound) to others is tried without them. A destroyed key is refused
    /// before that matters. Under any other key, such a row returns [`Error::Decrypt`].
    ///
    /// # Errors
    ///
    /// [`RowsError::Description`] for an invalid description; errors in the column's name and type; database
    /// errors. A row's error is in its [`TriedRow`].
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub async fn try_open_under(
        &self,
        crypto: &Crypto,
        column: EncryptedColumn,
        context: &EncryptionContext,
        key: DataKeyId,
        limit: u32,
    ) -> Result<Vec<TriedRow>, RowsError> {
        let layout = Layout::new(column)?;
        self.check(&layout, false).await?;
        let bytes = key.to_bytes();
        let ids = match &self.pool {
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => crate::postgres::under(pool, &layout, &bytes, limit).await?,
            #[cfg(feature = "sqlite")]
            Pool::Sqlite(pool) => crate::sqlite::under(pool, &layout, &bytes, limit).await?,
        };
        let mut tried = Vec::with_capacity(ids.len());
        for id in ids {
            let (id, opened) = match id {
                Err(unread) => (unread.id, Err(unread.error)),
                Ok(Row { id, .. }) => match self.fetch(&layout, &[&id]).await?.pop().flatten() {
                    // Deleted since.
                    None => continue,
                    Some(Err(unread)) => (id, Err(unread.error)),
                    Some(Ok(row)) if !lies_under(&row, &bytes) => continue,
                    Some(Ok(row)) => (id, open(crypto, &layout, context, row).await),
                },
            };
            let row = layout.name_of(&id);
            tried.push(TriedRow { row, opened });
        }
        Ok(tried)
    }
}

/// Tells whether a row still has this key: another process may have re-encrypted it.
fn lies_under(row: &Row, key: &[u8; 16]) -> bool {
    let cipher = row.cipher.as_ref();
    cipher.is_some_and(|cipher| cipher.get(2..18) == Some(&key[..]))
}

async fn open(
    crypto: &Crypto,
    layout: &Layout,
    context: &EncryptionContext,
    row: Row,
) -> Result<(), JobError> {
    let aad = layout.aad(&row.id)?;
    let cipher = Ciphertext::parse(row.cipher.unwrap_or_default()).map_err(Error::from)?;
    crypto.decrypt(context, &cipher, aad).await?;
    Ok(())
}
