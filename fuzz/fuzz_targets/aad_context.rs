//! Builds encryption contexts and AADs from arbitrary parts: no panic, and the framing loses nothing.
//!
//! A framing from which the parts can be read back is injective. This target reads them back with a reader that shares no
//! code with the writer.

#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use encx::limits::{MAX_AAD_LEN, MAX_AAD_PARTS, MAX_PAIRS};
use encx::{Aad, EncryptionContext, Field, RowId, RowIdParts};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

#[derive(Arbitrary, Debug)]
struct Input {
    pairs: Vec<(String, String)>,
    place: Place,
}

#[derive(Arbitrary, Debug)]
enum Place {
    Unbound,
    Free(Vec<Part>),
    Field {
        table: String,
        column: String,
        row: Row,
        path: Vec<String>,
    },
}

#[derive(Arbitrary, Debug)]
struct Row(Vec<Part>);

#[derive(Arbitrary, Debug)]
enum Part {
    Bytes(Vec<u8>),
    Integer(i128),
    Text(String),
    Unsigned(u128),
    Uuid([u8; 16]),
}

fuzz_target!(|input: Input| {
    check_context(&input.pairs);
    check_aad(&input.place);
});

fn check_context(pairs: &[(String, String)]) {
    let forth = EncryptionContext::from_pairs(pairs.iter().cloned());
    let back = EncryptionContext::from_pairs(pairs.iter().rev().cloned());
    let context = match (forth, back) {
        (Ok(forth), Ok(back)) => {
            assert_eq!(forth.canonical(), back.canonical(), "order matters");
            forth
        }
        (Err(forth), Err(_)) => {
            assert!(
                !forth.to_string().chars().any(char::is_control),
                "a log can be forged"
            );
            return;
        }
        (forth, back) => panic!("whether it is refused depends on order: {forth:?}, {back:?}"),
    };
    assert!((1..=MAX_PAIRS).contains(&pairs.len()));

    let mut rest = context.canonical();
    let count = take_u16(&mut rest);
    let mut read = Vec::new();
    for _ in 0..count {
        let mut text = || {
            let len = take_u16(&mut rest);
            String::from_utf8(take(&mut rest, len.into()).to_vec()).expect("only text went in")
        };
        read.push((text(), text()));
    }
    assert!(rest.is_empty());
    let expected: BTreeMap<_, _> = pairs.iter().cloned().collect();
    assert_eq!(read, expected.into_iter().collect::<Vec<_>>());
}

fn check_aad(place: &Place) {
    let aad = place.aad();
    let _ = format!("{aad:?}");
    let framed = match aad.framed() {
        Ok(framed) => framed,
        Err(refused) => {
            assert!(!refused.to_string().is_empty());
            return;
        }
    };
    assert!(framed.len() <= MAX_AAD_LEN);

    let mut rest = framed;
    let kind = take(&mut rest, 1)[0];
    let count = usize::from(take_u16(&mut rest));
    assert!(count <= MAX_AAD_PARTS);
    let mut read = Vec::new();
    for _ in 0..count {
        let tag = take(&mut rest, 1)[0];
        let len = take(&mut rest, 4).try_into().expect("four bytes");
        let bytes = take(&mut rest, u32::from_be_bytes(len) as usize);
        read.push((tag, bytes.to_vec()));
    }
    assert!(rest.is_empty());
    assert_eq!((kind, read), place.expected());
}

impl Place {
    fn aad(&self) -> Aad {
        match self {
            Self::Unbound => Aad::unbound(),
            Self::Free(parts) => parts.iter().fold(Aad::free(), |aad, part| match part {
                Part::Bytes(bytes) => aad.bytes(bytes),
                Part::Integer(integer) => aad.integer(*integer),
                Part::Text(text) => aad.text(text),
                Part::Unsigned(integer) => aad.integer(*integer),
                Part::Uuid(bytes) => aad.uuid(Uuid::from_bytes(*bytes)),
            }),
            Self::Field {
                table,
                column,
                row,
                path,
            } => match Field::try_new(table, column) {
                Ok(field) => field.row_path(row, path),
                // An empty name is refused; continue with the smallest AAD.
                Err(_) => Aad::unbound(),
            },
        }
    }

    /// Returns the kind and the parts that the frame must contain.
    fn expected(&self) -> (u8, Vec<(u8, Vec<u8>)>) {
        match self {
            Self::Unbound => (0, Vec::new()),
            Self::Free(parts) => (1, parts.iter().map(Part::expected).collect()),
            Self::Field { table, column, .. } if table.is_empty() || column.is_empty() => (0, Vec::new()),
            Self::Field {
                table,
                column,
                row,
                path,
            } => {
                let names = [table, column].map(|name| (1, name.as_bytes().to_vec()));
                let steps = path.iter().map(|step| (4, step.as_bytes().to_vec()));
                let parts = names
                    .into_iter()
                    .chain(row.0.iter().map(Part::expected))
                    .chain(steps);
                (2, parts.collect())
            }
        }
    }
}

impl Part {
    fn expected(&self) -> (u8, Vec<u8>) {
        match self {
            Self::Bytes(bytes) => (0, bytes.clone()),
            Self::Integer(integer) => (2, integer.to_be_bytes().to_vec()),
            Self::Text(text) => (1, text.as_bytes().to_vec()),
            Self::Unsigned(integer) => (2, integer.to_be_bytes().to_vec()),
            Self::Uuid(bytes) => (3, bytes.to_vec()),
        }
    }
}

impl RowId for Row {
    fn append_to(&self, parts: RowIdParts) -> RowIdParts {
        self.0.iter().fold(parts, |parts, part| match part {
            Part::Bytes(bytes) => bytes.append_to(parts),
            Part::Integer(integer) => integer.append_to(parts),
            Part::Text(text) => text.append_to(parts),
            Part::Unsigned(integer) => integer.append_to(parts),
            Part::Uuid(bytes) => Uuid::from_bytes(*bytes).append_to(parts),
        })
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(len);
    *rest = left;
    taken
}

fn take_u16(rest: &mut &[u8]) -> u16 {
    u16::from_be_bytes(take(rest, 2).try_into().expect("two bytes"))
}
