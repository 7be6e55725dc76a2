//! Checks which candidates of a blind index really have the searched value.

use crate::search::{IndexField, IndexValue, Message};

use super::error::{FieldFailure, RecordError};

/// A searched value.
pub struct Sought {
    index: IndexField,
    message: Message,
}

impl Sought {
    /// Normalises the value, as the index does.
    ///
    /// # Errors
    ///
    /// [`RecordError`] with [`Error::Index`](crate::Error::Index) if it cannot be indexed.
    pub fn new(name: &'static str, index: &IndexField, value: &impl IndexValue) -> Result<Self, RecordError> {
        let message = index
            .message(value)
            .map_err(|error| FieldFailure::new(name, error))?;
        let index = *index;
        Ok(Self { index, message })
    }

    /// Tells whether a candidate really has the value, rather than only the same term.
    #[must_use]
    pub fn is(&self, candidate: &impl IndexValue) -> bool {
        let candidate = self.index.message(candidate);
        candidate.is_ok_and(|candidate| candidate.is_same(&self.message))
    }
}

impl std::fmt::Debug for Sought {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sought")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}
