//! Reads the row that an AAD binds to, for errors and events.

use uuid::Uuid;

use super::{Aad, KIND_FIELD, TYPE_BYTES, TYPE_INTEGER, TYPE_PATH, TYPE_TEXT, TYPE_UUID};

/// A part of an AAD that names a row.
#[doc(hidden)]
pub enum Part<'a> {
    Bytes(&'a [u8]),
    Integer(i128),
    Step(&'a str),
    Text(&'a str),
    Uuid(Uuid),
}

impl Aad {
    /// Reads the parts of an AAD that names a row: table, column, the row's id and the path. `None` for other AADs.
    ///
    /// Stops before bound columns: their values may be confidential.
    #[doc(hidden)]
    #[must_use]
    pub fn row_parts(&self) -> Option<impl Iterator<Item = Part<'_>>> {
        let framed = self.framed().ok()?;
        let (&kind, mut rest) = framed.split_first()?;
        if kind != KIND_FIELD {
            return None;
        }
        rest = rest.get(2..)?;
        Some(std::iter::from_fn(move || {
            let (&kind, after) = rest.split_first()?;
            let (len, after) = after.split_first_chunk()?;
            let (bytes, after) = after.split_at_checked(u32::from_be_bytes(*len) as usize)?;
            rest = after;
            Some(match kind {
                TYPE_BYTES => Part::Bytes(bytes),
                TYPE_INTEGER => Part::Integer(i128::from_be_bytes(bytes.try_into().ok()?)),
                TYPE_PATH => Part::Step(std::str::from_utf8(bytes).ok()?),
                TYPE_TEXT => Part::Text(std::str::from_utf8(bytes).ok()?),
                TYPE_UUID => Part::Uuid(Uuid::from_bytes(bytes.try_into().ok()?)),
                _ => {
                    rest = &[];
                    return None;
                }
            })
        }))
    }
}
