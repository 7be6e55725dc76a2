//! Opening each wrap of a key, and not the first that opens alone.

use encx_core::context::EncryptionContext;
use encx_core::kms::KmsContext;
use encx_core::store::KeyRecord;

use super::{Keks, not_allowed};
use crate::error::Error;

impl Keks {
    /// Unwraps each wrap of a record that the rule allows, and checks that it holds the record's key.
    ///
    /// # Errors
    ///
    /// That of a wrap that does not open, after the others were tried.
    pub(crate) async fn open_all(
        &self,
        record: &KeyRecord,
        context: &EncryptionContext,
    ) -> Result<(), Error> {
        let choice = self.choose(context)?;
        let Some(first) = record.wraps.first() else {
            return Err(Error::RolledBack {
                found: Some(record.id),
                used: record.id,
            });
        };
        let allowed = self.allowed_wraps(record, &choice).await?;
        if allowed.is_empty() {
            return Err(not_allowed(record, first));
        }
        let pairs = KmsContext::new(context, record.usage, record.id);
        let mut failed: Option<Error> = None;
        for wrap in allowed {
            if let Err(error) = self.open(record, wrap, &pairs).await
                // What will not open later either says more than what may.
                && failed.as_ref().is_none_or(|_| !error.is_retryable())
            {
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
