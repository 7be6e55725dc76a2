//! How far an adoption is: which rows have which of the two columns.

use crate::catalog;
use crate::error::RowsError;
use crate::layout::Layout;
use crate::rows::Rows;

/// How far an adoption is. From [`AdoptionJobs::status`](crate::AdoptionJobs::status).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AdoptionStatus {
    /// How many rows have a plaintext alone: `backfill` encrypts them.
    pub plaintext_only: u64,
    /// How many rows have a plaintext and a ciphertext: `contract` sets the plaintext to NULL.
    pub both: u64,
    /// How many rows have a ciphertext alone.
    pub ciphertext_only: u64,
    /// Whether `contract` has set any plaintext to NULL, so that no other is trusted.
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
