//! Progress of an adoption: which rows have which of the two columns.

use crate::catalog;
use crate::error::RowsError;
use crate::layout::Layout;
use crate::rows::Rows;

/// The progress of an adoption. From [`AdoptionJobs::status`](crate::AdoptionJobs::status).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdoptionStatus {
    /// Rows with only a plaintext. `backfill` encrypts them.
    pub plaintext_only: u64,
    /// Rows with a plaintext and a ciphertext. `contract` sets the plaintext to NULL.
    pub both: u64,
    /// Rows with only a ciphertext.
    pub ciphertext_only: u64,
    /// Whether `contract` has begun to set plaintexts to NULL. The backfill then refuses to run.
    pub contracted: bool,
}

impl Rows {
    pub(crate) async fn count_adopted(&self, layout: &Layout) -> Result<AdoptionStatus, RowsError> {
        let plain = layout.plain.as_ref().map_or("", |plain| plain.ident.as_str());
        let counted = catalog::adopted(&self.pool, layout, plain).await?;
        // A count is never negative.
        let [plaintext_only, both, ciphertext_only] =
            counted.map(|rows| u64::try_from(rows).unwrap_or_default());
        Ok(AdoptionStatus {
            plaintext_only,
            both,
            ciphertext_only,
            contracted: false,
        })
    }
}
