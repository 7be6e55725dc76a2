//! Names a column, to bind values to its rows.

use std::borrow::Cow;
use std::fmt;

use super::buffer::{Buffer, SHORT};
use super::{Aad, AadError, KIND_FIELD, RowId, TYPE_TEXT};

/// Names a column of a table, to bind its values to their rows.
///
/// ```
/// use encx::Field;
///
/// const SSN: Field = Field::new("users", "ssn");
///
/// let of_one_row = SSN.row(42);
/// let of_a_composite_key = Field::new("line_items", "note").row(("order-7", 3));
/// ```
///
/// Every ciphertext authenticates these names. If the column is renamed in the database, keep the old names here.
#[derive(Clone, PartialEq, Eq)]
pub struct Field {
    table: Cow<'static, str>,
    column: Cow<'static, str>,
    /// Both names, framed once, and their framed length; `None` if they are too long for it.
    framed: Option<([u8; SHORT], usize)>,
}

/// Frames the names of a field, at compile time if they are literals. `None` if they are too long.
const fn frame_names(table: &[u8], column: &[u8]) -> Option<([u8; SHORT], usize)> {
    let len = 3 + 5 + table.len() + 5 + column.len();
    if len > SHORT {
        return None;
    }
    let mut framed = [0; SHORT];
    (framed[0], framed[2]) = (KIND_FIELD, 2);
    let (mut at, mut part) = (3, 0);
    while part < 2 {
        let name = if part == 0 { table } else { column };
        framed[at] = TYPE_TEXT;
        // Less than SHORT, so it is in the last of four bytes.
        framed[at + 4] = name.len().to_le_bytes()[0];
        at += 5;
        let mut byte = 0;
        while byte < name.len() {
            framed[at] = name[byte];
            (at, byte) = (at + 1, byte + 1);
        }
        part += 1;
    }
    Some((framed, len))
}

impl Field {
    /// Names a column. An empty name in a `const` does not compile.
    ///
    /// # Panics
    ///
    /// If a name is empty. Use [`Field::try_new`] for names that are not literals.
    #[must_use]
    pub const fn new(table: &'static str, column: &'static str) -> Self {
        assert!(!table.is_empty(), "the table's name is empty");
        assert!(!column.is_empty(), "the column's name is empty");
        Self {
            table: Cow::Borrowed(table),
            column: Cow::Borrowed(column),
            framed: frame_names(table.as_bytes(), column.as_bytes()),
        }
    }

    /// Names a column whose names are known only at run time.
    ///
    /// # Errors
    ///
    /// [`AadError::EmptyPart`] if a name is empty.
    pub fn try_new(table: impl Into<String>, column: impl Into<String>) -> Result<Self, AadError> {
        let (table, column) = (table.into(), column.into());
        if table.is_empty() || column.is_empty() {
            return Err(AadError::EmptyPart);
        }
        Ok(Self {
            framed: frame_names(table.as_bytes(), column.as_bytes()),
            table: table.into(),
            column: column.into(),
        })
    }

    /// Returns the table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Returns the column's name.
    #[must_use]
    pub fn column(&self) -> &str {
        &self.column
    }

    /// Binds to a row by its id: an integer of any width, text, bytes, a UUID, or a tuple of up to six of these.
    ///
    /// Use an id that never changes. The call that uses the AAD refuses an empty id. An upsert on another unique column keeps
    /// the existing row's id: encrypt for that id.
    #[inline]
    #[must_use]
    pub fn row(&self, id: impl RowId) -> Aad {
        let place = match &self.framed {
            Some((framed, len)) => Aad(Ok(Buffer::new(framed, *len))),
            None => Aad::of_column(&self.table, &self.column),
        };
        place.row(&id)
    }

    /// Binds to a place inside a document in the row, such as `["address", "street"]` of a JSON column.
    ///
    /// Steps of the path have a type of their own, so they cannot be mistaken for parts of the row's id.
    #[must_use]
    pub fn row_path<S: AsRef<str>>(&self, id: impl RowId, path: impl IntoIterator<Item = S>) -> Aad {
        path.into_iter()
            .fold(self.row(id), |place, step| place.step(step.as_ref()))
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Field")
            .field("table", &self.table)
            .field("column", &self.column)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::aad::PREFIX_LEN;
    use crate::aad::tests::framed;

    #[test]
    fn an_ordinary_row_allocates_nothing() {
        let aad = Field::new("customer_addresses", "street_and_number").row(Uuid::from_bytes([1; 16]));
        assert!(!aad.0.unwrap().is_long());
    }

    #[test]
    fn long_names_and_ids_are_framed_alike() {
        for len in [1, 30, 80, 90, 105, 106, 107, 108, 109, 110, 111, 200] {
            let names = ("t".repeat(len / 2 + 1), "c".repeat(len / 2 + 1));
            for id in [1, len, 2 * len] {
                let id = "i".repeat(id);
                let parts = Aad::begin(KIND_FIELD).text(&names.0).text(&names.1).text(&id);
                let field = Field::try_new(&*names.0, &*names.1).unwrap();
                let mut row = field.row(&*id);
                assert_eq!(framed(&row), framed(&parts));
                let mut other = row.clone();
                for prefix in [[7; PREFIX_LEN], [9; PREFIX_LEN]] {
                    let whole = [&prefix[..], &framed(&parts)].concat();
                    assert_eq!(row.with_prefix(&prefix).unwrap(), whole);
                    assert_eq!(other.with_prefix(&prefix).unwrap(), whole);
                }
            }
        }
    }

    #[test]
    fn names_of_every_length_around_the_bound_are_framed_alike() {
        for (table, column) in [(48, 48), (48, 49), (49, 48), (49, 49), (1, 96), (96, 1), (97, 1)] {
            let (table, column) = ("t".repeat(table), "c".repeat(column));
            let field = Field::try_new(&*table, &*column).unwrap();
            let expected = [
                &[2, 0, 3, 1, 0, 0, 0, u8::try_from(table.len()).unwrap()],
                table.as_bytes(),
                &[1, 0, 0, 0, u8::try_from(column.len()).unwrap()],
                column.as_bytes(),
                b"\x01\0\0\0\x02id",
            ];
            assert_eq!(framed(&field.row("id")), expected.concat());
        }
    }
}
