//! Checks that rows belong to the encryption context that the caller expects.

use encx_core::context::{ContextError, EncryptionContext};

use super::error::{FieldFailure, RecordError};
use crate::error::Error;

/// Checks that rows name the context that the caller expects.
#[doc(hidden)]
pub fn same_context(
    expected: Result<EncryptionContext, ContextError>,
    found: impl IntoIterator<Item = Result<EncryptionContext, ContextError>>,
) -> Result<(), RecordError> {
    let expected = expected.map_err(FieldFailure::of_context)?;
    let differ = |(row, found)| {
        let failure = FieldFailure::new(RecordError::CONTEXT, is_in_context(&expected, found).err()?);
        Some(failure.in_row(row))
    };
    RecordError::check(found.into_iter().enumerate().filter_map(differ).collect())
}

/// Checks that a row names the context that the caller expects.
#[doc(hidden)]
pub fn is_in_context(
    expected: &EncryptionContext,
    found: Result<EncryptionContext, ContextError>,
) -> Result<(), Error> {
    if found? == *expected {
        Ok(())
    } else {
        Err(Error::OtherContext)
    }
}
