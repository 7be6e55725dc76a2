//! The location of a refused ciphertext, read from its AAD for errors and events.

use std::fmt::{self, Write};
use std::sync::Arc;

use uuid::Uuid;

use encx_core::aad::{Aad, Part};
use encx_core::key::DataKeyId;

/// The location of a refused ciphertext: its table, column and row as the AAD names them, and its data key.
///
/// It describes what the caller asked for, not what the ciphertext says: a value that was copied from
/// another row is reported at the row that it was copied to. A row's id shows its type: `7` is an integer,
/// `"7"` is text, `0x07` is bytes.
///
/// An AAD of free parts, or an unbound one, has no table, column and row; its parts are the
/// caller's own and are not shown.
///
/// ```
/// # use encx_testkit::{MemoryKeyStore, MemoryKms};
/// use encx::{Crypto, EncryptionContext, Error, Field};
///
/// # encx_testkit::block_on(async {
/// # let crypto = Crypto::builder(MemoryKms::new(), MemoryKeyStore::new()).build().await?;
/// # let context = EncryptionContext::from_pairs([("tenantId", "t-42")])?;
/// const SSN: Field = Field::new("users", "ssn");
/// let sealed = crypto.encrypt(&context, "123-45-6789", SSN.row(7)).await?;
/// let Err(Error::Decrypt { at }) = crypto.decrypt(&context, &sealed, SSN.row(8)).await else { panic!() };
/// assert_eq!((at.table(), at.column(), at.row()), (Some("users"), Some("ssn"), Some("8")));
/// # Ok::<(), encx::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Location(Option<Arc<Inner>>);

#[derive(PartialEq, Eq)]
struct Inner {
    key: Option<DataKeyId>,
    place: Option<Place>,
}

#[derive(PartialEq, Eq)]
struct Place {
    table: String,
    column: String,
    row: String,
    /// The type of the row's id, and another type with which the same id may have been encrypted.
    types: Option<(&'static str, &'static str)>,
}

impl Location {
    /// Reads the location of a ciphertext from its AAD.
    pub(crate) fn of(key: Option<DataKeyId>, aad: &Aad) -> Self {
        let place = Place::read(aad);
        Self(Some(Arc::new(Inner { key, place })))
    }

    /// Returns a location with only the data key, until the place is known.
    pub(crate) fn of_key(key: DataKeyId) -> Self {
        let (key, place) = (Some(key), None);
        Self(Some(Arc::new(Inner { key, place })))
    }

    /// Returns the table's name in the AAD; `None` if the AAD names no row of a table.
    #[must_use]
    pub fn table(&self) -> Option<&str> {
        self.place().map(|place| place.table.as_str())
    }

    /// Returns the column's name in the AAD, followed by the path into its value, such as `profile/address/street`.
    #[must_use]
    pub fn column(&self) -> Option<&str> {
        self.place().map(|place| place.column.as_str())
    }

    /// Returns the row's id, as it was given to [`Field::row`](crate::Field::row): `7`, `"alice"`, a UUID, `0x0a0b`, or
    /// `("order-7", 3)`. Long ids are cut off.
    #[must_use]
    pub fn row(&self) -> Option<&str> {
        self.place().map(|place| place.row.as_str())
    }

    /// Returns the version of the data key that the ciphertext names. It is not authenticated.
    #[must_use]
    pub fn key_id(&self) -> Option<DataKeyId> {
        self.0.as_ref()?.key
    }

    fn place(&self) -> Option<&Place> {
        self.0.as_ref()?.place.as_ref()
    }

    /// Formats the location after a noun; empty if it is unknown.
    pub(super) fn suffix(&self) -> String {
        if self.place().is_some() {
            format!(" of {self}")
        } else {
            String::new()
        }
    }

    /// Formats a hint at a wrong type of the row's id.
    pub(super) fn hint(&self) -> String {
        let Some((given, other)) = self.place().and_then(|place| place.types) else {
            return String::new();
        };
        format!(
            ". An id opens only as the type that it was encrypted with: the row's id was given as {given}; was the row encrypted with it as {other}?"
        )
    }
}

/// `users.ssn, row 7`; or that the AAD names no row.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place() {
            Some(Place {
                table, column, row, ..
            }) => write!(f, "{table}.{column}, row {row}"),
            None => f.write_str("a place that the AAD does not name"),
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

/// The greatest shown length of a name or of a text in a row's id, in characters, and of bytes.
const SHOWN: usize = 64;

impl Place {
    fn read(aad: &Aad) -> Option<Self> {
        let mut parts = aad.row_parts()?;
        let (Part::Text(table), Part::Text(column)) = (parts.next()?, parts.next()?) else {
            return None;
        };
        let (table, mut column) = (name(table), name(column));
        let (mut ids, mut types) = (Vec::new(), None);
        for part in parts {
            match part {
                Part::Step(step) => {
                    column.push('/');
                    column.push_str(&name(step));
                    continue;
                }
                Part::Text(text) => {
                    types = types.or_else(|| Some(("text", other_type(text)?)));
                    ids.push(shown(text));
                }
                Part::Integer(integer) => {
                    types = types.or(Some(("an integer", "text")));
                    ids.push(integer.to_string());
                }
                Part::Uuid(uuid) => {
                    types = types.or(Some(("a UUID", "text")));
                    ids.push(uuid.to_string());
                }
                Part::Bytes(bytes) => ids.push(hex(bytes)),
            }
        }
        let row = match ids.as_slice() {
            [one] => one.clone(),
            several => format!("({})", several.join(", ")),
        };
        Some(Self {
            table,
            column,
            row,
            types,
        })
    }
}

/// Returns another type of id that a text could be.
fn other_type(text: &str) -> Option<&'static str> {
    if text.parse::<i128>().is_ok() {
        Some("an integer")
    } else if Uuid::parse_str(text).is_ok() {
        Some("a UUID")
    } else {
        None
    }
}

/// Formats a name, and escapes what could break a log line.
fn name(text: &str) -> String {
    let shown = shown(text);
    let inner = shown.strip_prefix('"').and_then(|shown| shown.strip_suffix('"'));
    inner.map_or(shown.clone(), str::to_owned)
}

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

fn hex(bytes: &[u8]) -> String {
    let mut hex = "0x".to_owned();
    for byte in bytes.iter().take(SHOWN) {
        // Writing to a `String` cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    if bytes.len() > SHOWN {
        hex.push('…');
    }
    hex
}

#[cfg(test)]
mod tests {
    use super::*;
    use encx_core::aad::Field;

    fn at(aad: &Aad) -> String {
        let location = Location::of(DataKeyId::generate(1, None).ok(), aad);
        let text = location.to_string();
        assert_eq!(
            location.table().map(|table| {
                let (column, row) = (location.column().unwrap(), location.row().unwrap());
                format!("{table}.{column}, row {row}")
            }),
            location.table().map(|_| text.clone())
        );
        assert_eq!(location.key_id().unwrap().unix_millis(), 1);
        text
    }

    #[test]
    fn each_kind_of_id_is_shown_with_its_type() {
        const SSN: Field = Field::new("users", "ssn");
        let uuid = Uuid::from_bytes([0xab; 16]);
        for (aad, shown) in [
            (SSN.row(-7_i64), "users.ssn, row -7"),
            (
                SSN.row(i128::MAX),
                "users.ssn, row 170141183460469231731687303715884105727",
            ),
            (SSN.row("7"), "users.ssn, row \"7\""),
            (
                SSN.row(uuid),
                "users.ssn, row abababab-abab-abab-abab-abababababab",
            ),
            (SSN.row([1_u8, 0xff]), "users.ssn, row 0x01ff"),
            (SSN.row(("order-7", 3)), "users.ssn, row (\"order-7\", 3)"),
            (
                SSN.row_path(7, ["home", "street"]),
                "users.ssn/home/street, row 7",
            ),
            (
                SSN.row("a\n\u{1b}[31m\"b"),
                "users.ssn, row \"a\\n\\u{1b}[31m\\\"b\"",
            ),
            (
                SSN.row("ä".repeat(64)),
                &format!("users.ssn, row \"{}\"", "ä".repeat(64)),
            ),
            (
                SSN.row("ä".repeat(65)),
                &format!("users.ssn, row \"{}\"…", "ä".repeat(64)),
            ),
            (
                SSN.row([7; 65]),
                &format!("users.ssn, row 0x{}…", "07".repeat(64)),
            ),
            (
                Field::try_new("u\n", "\"s\"").unwrap().row(1),
                "u\\n.\\\"s\\\", row 1",
            ),
            // Another column's value is not part of the row's id, and may be confidential.
            (
                SSN.row(7).bind("owner", "ada").bind("rights", None::<i64>),
                "users.ssn, row 7",
            ),
            (
                Aad::free().text("users").text("secret"),
                "a place that the AAD does not name",
            ),
            (Aad::unbound(), "a place that the AAD does not name"),
            (SSN.row(""), "a place that the AAD does not name"),
        ] {
            assert_eq!(at(&aad), shown);
        }
    }

    #[test]
    fn the_type_of_an_id_is_pointed_out() {
        const SSN: Field = Field::new("users", "ssn");
        let hint = |aad: &Aad| Location::of(DataKeyId::generate(1, None).ok(), aad).hint();
        for (aad, types) in [
            (SSN.row("7"), "text; was the row encrypted with it as an integer?"),
            (
                SSN.row(Uuid::nil().to_string()),
                "text; was the row encrypted with it as a UUID?",
            ),
            (SSN.row(7), "an integer; was the row encrypted with it as text?"),
            (
                SSN.row(Uuid::nil()),
                "a UUID; was the row encrypted with it as text?",
            ),
        ] {
            assert!(hint(&aad).ends_with(types), "{}", hint(&aad));
        }
        for none in [SSN.row("seven"), SSN.row([7]), Aad::free().text("7")] {
            assert_eq!(hint(&none), "");
        }
    }
}
