//! The values of a row's id: as the database keeps them, as a job's position, and as the AAD frames them.

use std::fmt;

use encx::record::RowIdKind;
use encx::{RowId, RowIdParts};
use uuid::Uuid;

/// A value as the database keeps it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cell {
    Bytes(Vec<u8>),
    Integer(i64),
    /// Text that is not UTF-8, as its bytes. No value of ours, but a walk has to get past a row whose id it is.
    Raw(Vec<u8>),
    /// A real number, as its bits. No value of ours either.
    #[cfg_attr(
        not(feature = "sqlite"),
        allow(dead_code, reason = "only in SQLite may a row's id be of any type")
    )]
    Real(u64),
    Text(String),
    #[cfg_attr(
        not(feature = "postgres"),
        allow(dead_code, reason = "only PostgreSQL keeps UUIDs as such")
    )]
    Uuid(Uuid),
}

impl Cell {
    /// Names what it is, for errors.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Bytes(_) => "bytes",
            Self::Integer(_) => "an integer",
            Self::Raw(_) => "text that is not UTF-8",
            Self::Real(_) => "a real number",
            Self::Text(_) => "text",
            Self::Uuid(_) => "a UUID",
        }
    }

    /// Reads it as a UUID: as such, 16 bytes or text.
    pub(crate) fn as_uuid(&self) -> Option<Uuid> {
        match self {
            Self::Bytes(bytes) => Uuid::from_slice(bytes).ok(),
            Self::Integer(_) | Self::Raw(_) | Self::Real(_) => None,
            Self::Text(text) => Uuid::parse_str(text).ok(),
            Self::Uuid(uuid) => Some(*uuid),
        }
    }

    /// Returns the bytes that it is made of; none of a number or a UUID.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) | Self::Raw(bytes) => bytes,
            Self::Integer(_) | Self::Real(_) | Self::Uuid(_) => &[],
            Self::Text(text) => text.as_bytes(),
        }
    }

    /// Writes it as a value of an encryption context.
    #[cfg(feature = "sqlite")]
    pub(crate) fn to_context(&self) -> Option<String> {
        match self {
            Self::Bytes(_) => self.as_uuid().map(|uuid| uuid.hyphenated().to_string()),
            Self::Integer(integer) => Some(integer.to_string()),
            Self::Raw(_) | Self::Real(_) => None,
            Self::Text(text) => Some(text.clone()),
            Self::Uuid(uuid) => Some(uuid.hyphenated().to_string()),
        }
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) | Self::Raw(bytes) => {
                f.write_str("0x")?;
                bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Integer(integer) => integer.fmt(f),
            Self::Real(bits) => write!(f, "{:?}", f64::from_bits(*bits)),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Uuid(uuid) => uuid.fmt(f),
        }
    }
}

/// A row's id, as the database keeps it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id(pub(crate) Vec<Cell>);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, cell) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str(", ")?;
            }
            cell.fmt(f)?;
        }
        Ok(())
    }
}

/// A row's id with what its parts are to the AAD.
pub(crate) struct Framed<'a>(pub(crate) &'a Id, pub(crate) &'a [RowIdKind]);

impl Framed<'_> {
    /// Checks that every part can be what it is described as. Returns the place of the first that cannot.
    pub(crate) fn misfit(&self) -> Option<usize> {
        self.0.0.iter().zip(self.1).position(|(cell, kind)| match kind {
            RowIdKind::Bytes => !matches!(cell, Cell::Bytes(_)),
            RowIdKind::Integer => !matches!(cell, Cell::Integer(_)),
            RowIdKind::Text => !matches!(cell, Cell::Text(_)),
            RowIdKind::Uuid => cell.as_uuid().is_none(),
            _ => true,
        })
    }
}

impl RowId for Framed<'_> {
    fn append_to(&self, parts: RowIdParts) -> RowIdParts {
        let cells = self.0.0.iter().zip(self.1);
        cells.fold(parts, |parts, (cell, kind)| match (kind, cell) {
            (RowIdKind::Uuid, cell) => cell.as_uuid().unwrap_or_default().append_to(parts),
            (_, Cell::Bytes(bytes)) => bytes.append_to(parts),
            (_, Cell::Integer(integer)) => integer.append_to(parts),
            // A misfit: without its part the AAD is refused.
            (_, Cell::Raw(_) | Cell::Real(_)) => parts,
            (_, Cell::Text(text)) => text.append_to(parts),
            (_, Cell::Uuid(uuid)) => uuid.append_to(parts),
        })
    }
}

/// Where a walk is: in which of its columns, and behind which row; at the column's beginning without one.
///
/// `u16 column ‖ {u8 type ‖ u32 length ‖ bytes}*`, big-endian.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) column: u16,
    pub(crate) row: Option<Id>,
}

/// The longest position that a job keeps, in bytes.
const MAX_POSITION: usize = 8192;

impl Position {
    /// Returns its bytes; `None` if they are more than a job keeps, because the row's id is that long.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut bytes = self.column.to_be_bytes().to_vec();
        let mut put = |kind: u8, value: &[u8]| {
            bytes.push(kind);
            bytes.extend_from_slice(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(value);
        };
        for cell in self.row.iter().flat_map(|row| &row.0) {
            match cell {
                Cell::Bytes(value) => put(0, value),
                Cell::Text(value) => put(1, value.as_bytes()),
                Cell::Integer(value) => put(2, &value.to_be_bytes()),
                Cell::Uuid(value) => put(3, value.as_bytes()),
                Cell::Real(bits) => put(4, &bits.to_be_bytes()),
                Cell::Raw(value) => put(5, value),
            }
        }
        (bytes.len() <= MAX_POSITION).then_some(bytes)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let (column, mut rest) = bytes.split_first_chunk()?;
        let mut row = Vec::new();
        while let Some((&kind, framed)) = rest.split_first() {
            let (len, framed) = framed.split_first_chunk()?;
            let len = usize::try_from(u32::from_be_bytes(*len)).ok()?;
            let (value, behind) = framed.split_at_checked(len)?;
            row.push(match kind {
                0 => Cell::Bytes(value.to_vec()),
                1 => Cell::Text(String::from_utf8(value.to_vec()).ok()?),
                2 => Cell::Integer(i64::from_be_bytes(value.try_into().ok()?)),
                3 => Cell::Uuid(Uuid::from_slice(value).ok()?),
                4 => Cell::Real(u64::from_be_bytes(value.try_into().ok()?)),
                5 => Cell::Raw(value.to_vec()),
                _ => return None,
            });
            rest = behind;
        }
        Some(Self {
            column: u16::from_be_bytes(*column),
            row: (!row.is_empty()).then_some(Id(row)),
        })
    }
}

#[cfg(test)]
mod tests {
    use encx::Field;

    use super::*;

    #[test]
    fn positions_come_back_and_garbage_does_not() {
        let row = Id(vec![
            Cell::Integer(-7),
            Cell::Text("ü".to_owned()),
            Cell::Bytes(vec![0, 255]),
            Cell::Uuid(Uuid::from_u128(9)),
            Cell::Real((-1.5_f64).to_bits()),
            Cell::Raw(vec![0x61, 0xff]),
        ]);
        for row in [None, Some(row)] {
            let position = Position { column: 258, row };
            let bytes = position.to_bytes().unwrap();
            assert_eq!(Position::parse(&bytes), Some(position));
            for cut in (0..bytes.len()).filter(|cut| ![2, 15, 22, 29, 50, 63].contains(cut)) {
                assert_eq!(Position::parse(&bytes[..cut]), None, "{cut}");
            }
        }
        let long = Id(vec![Cell::Text("x".repeat(8200))]);
        let (column, row) = (0, Some(long));
        assert_eq!(Position { column, row }.to_bytes(), None);
    }

    #[test]
    fn the_aad_is_that_of_the_values() {
        let field = Field::new("t", "c");
        let framed = |cell: Cell, kind| {
            field
                .row(Framed(&Id(vec![cell]), &[kind]))
                .framed()
                .unwrap()
                .to_vec()
        };
        let of = |aad: encx::Aad| aad.framed().unwrap().to_vec();
        let uuid = Uuid::from_u128(0xabcd << 96);
        assert_eq!(framed(Cell::Integer(5), RowIdKind::Integer), of(field.row(5)));
        assert_eq!(
            framed(Cell::Text("x".to_owned()), RowIdKind::Text),
            of(field.row("x"))
        );
        assert_eq!(
            framed(Cell::Bytes(vec![1]), RowIdKind::Bytes),
            of(field.row(vec![1_u8]))
        );
        for cell in [
            Cell::Uuid(uuid),
            Cell::Bytes(uuid.as_bytes().to_vec()),
            Cell::Text(uuid.to_string().to_uppercase()),
        ] {
            assert_eq!(framed(cell, RowIdKind::Uuid), of(field.row(uuid)));
        }
        let misfit = |cell: Cell, kind| Framed(&Id(vec![cell]), &[kind]).misfit();
        assert_eq!(misfit(Cell::Integer(5), RowIdKind::Text), Some(0));
        assert_eq!(misfit(Cell::Text("no".to_owned()), RowIdKind::Uuid), Some(0));
        assert_eq!(misfit(Cell::Text("no".to_owned()), RowIdKind::Text), None);
    }
}
