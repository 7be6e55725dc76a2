//! Errors of records: which fields of which rows failed, and why.

use std::borrow::Cow;
use std::fmt;

use encx_core::causes::debug_as_text;
use encx_core::context::ContextError;

use crate::error::Error;

/// Names every field of a record or of a page of records that could not be encrypted or decrypted.
///
/// It contains at least one failure. Nothing was written, and there is no partial record. Shows no part of a value.
#[derive(Clone)]
pub struct RecordError {
    failures: Vec<FieldFailure>,
}

/// A field that failed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FieldFailure {
    /// The index of the row in the input, from 0; 0 for a single record.
    pub row: usize,
    /// The field's name in the struct, such as `email`, or `address.street` for a nested one. If the whole record
    /// failed, it is [`RecordError::CONTEXT`].
    pub field: Cow<'static, str>,
    /// Why.
    pub error: Error,
}

impl RecordError {
    /// Replaces a field's name if the record's encryption context cannot be used.
    pub const CONTEXT: &'static str = "encryption context";

    /// Lists the failures, by row and in the order of the struct.
    #[must_use]
    pub fn failures(&self) -> &[FieldFailure] {
        &self.failures
    }

    /// Tells whether the same call may succeed later unchanged, which requires every failure to be retryable.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.failures.iter().all(|failure| failure.error.is_retryable())
    }

    pub(super) fn check(failures: Vec<FieldFailure>) -> Result<(), Self> {
        if failures.is_empty() {
            Ok(())
        } else {
            Err(Self { failures })
        }
    }

    pub(super) fn into_failures(self) -> Vec<FieldFailure> {
        self.failures
    }

    /// Sets the row of a single record's failures.
    pub(super) fn in_row(mut self, row: usize) -> Self {
        for failure in &mut self.failures {
            failure.row = row;
        }
        self
    }
}

impl FieldFailure {
    pub(super) fn new(field: impl Into<Cow<'static, str>>, error: impl Into<Error>) -> Self {
        Self {
            row: 0,
            field: field.into(),
            error: error.into(),
        }
    }

    pub(super) fn of_context(error: ContextError) -> Self {
        Self::new(RecordError::CONTEXT, error)
    }

    /// Makes the error of a record whose fields changed between collecting and assembling.
    pub(super) fn misaligned() -> Self {
        Self::new(
            "record",
            Error::Config {
                what: "the record's fields changed while they were encrypted or decrypted; an `Option` among them \
                       must not change during the call"
                    .to_owned(),
            },
        )
    }

    pub(super) fn in_row(mut self, row: usize) -> Self {
        self.row = row;
        self
    }
}

impl From<FieldFailure> for RecordError {
    fn from(failure: FieldFailure) -> Self {
        Self {
            failures: vec![failure],
        }
    }
}

/// Enough failures to diagnose the cause, rather than the whole page.
const SHOWN: usize = 8;

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several_rows = self.failures.iter().any(|failure| failure.row > 0);
        for (at, failure) in self.failures.iter().take(SHOWN).enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            if several_rows {
                write!(f, "row {}, ", failure.row)?;
            }
            write!(f, "{}: {}", failure.field, failure.error)?;
        }
        match self.failures.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

debug_as_text!(RecordError);

impl std::error::Error for RecordError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let first = self.failures.first()?;
        std::error::Error::source(&first.error)
    }
}
