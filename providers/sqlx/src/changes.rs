//! Turns rows of a poll into a page of changes, for both databases. An unreadable row hides no others.

use encx_core::key::{DataKeyId, KeyState, Scope};
use encx_core::store::{ChangeCursor, ChangePage, KeyChange, Revision, StoreError, Timestamp};

use crate::columns::{Columns, StoredRow, of_table};
use crate::row::{corrupt_column, corrupt_id, parse_id, revision_of, scope_of, state_of};

pub(crate) const CHANGES_PER_PAGE: usize = 1000;

/// How many rows a poll requests: one more than a page, to show whether there is another page.
pub(crate) const ONE_MORE: i64 = 1001;

const _: () = assert!(CHANGES_PER_PAGE == 1000 && ONE_MORE == 1001);

/// A row of the poll: its position in the order of changes, and its contents if readable.
pub(crate) struct RawChange {
    pub(crate) at: Timestamp,
    pub(crate) id: Vec<u8>,
    pub(crate) change: Result<KeyChange, StoreError>,
}

/// Makes a page of the rows that a poll returned, at most [`ONE_MORE`].
///
/// The poll began at `begin`; `horizon` is as in [`ChangeCursor::following`]. An unreadable row is skipped: loading its
/// scope returns the error.
pub(crate) fn page_of(
    cursor: &ChangeCursor,
    begin: (Timestamp, Option<DataKeyId>),
    rows: impl IntoIterator<Item = Result<RawChange, StoreError>>,
    horizon: Timestamp,
) -> ChangePage {
    let mut changes = Vec::new();
    let mut last = begin;
    let mut more = false;
    for (place, row) in rows.into_iter().enumerate() {
        if place == CHANGES_PER_PAGE {
            more = true;
            break;
        }
        let change = row.and_then(|row| {
            last = position(row.at, &row.id);
            row.change
        });
        match change {
            Ok(change) => changes.push(change),
            Err(error) => {
                tracing::warn!(target: "encx::store", %error, "an unreadable change of a data key is skipped");
            }
        }
    }
    let next = cursor.following(last, horizon, more);
    ChangePage::new(changes, next, more)
}

/// Reads a row of the poll; `None` for the row that only contains the time.
pub(crate) fn raw_change<R: StoredRow>(row: &R) -> Option<Result<RawChange, StoreError>> {
    let id = match row.id("id") {
        Ok(id) => id?,
        Err(error) => return Some(Err(corrupt_id(&error))),
    };
    let at = of_table("data keys", row).get(R::moment, "changed_at");
    Some(at.map(|at| RawChange {
        at,
        change: change_of(&id, |id| {
            let columns = Columns::new(row, |column| corrupt_column(id, column));
            Ok((
                columns.get(R::bytes, "scope")?,
                columns.get(R::text, "state")?,
                columns.get(R::integer, "revision")?,
            ))
        }),
        id,
    }))
}

/// Makes a change of an id, which may not be a data key's, and of the scope, the state and the revision.
fn change_of(
    id: &[u8],
    rest: impl FnOnce(DataKeyId) -> Result<(Vec<u8>, String, i64), StoreError>,
) -> Result<KeyChange, StoreError> {
    let id = parse_id(id)?;
    let (scope, state, revision) = rest(id)?;
    let scope: Scope = scope_of(id, &scope)?;
    let state: KeyState = state_of(id, &state)?;
    let revision: Revision = revision_of(id, revision)?;
    Ok(KeyChange::new(id, scope, state, revision))
}

/// Finds the cursor position just after a row and before every later one.
///
/// Cursors only contain ids of data keys. If the row's id is not one, this is the next possible one. Its random bits
/// after the variant are all zero, so no key has it.
fn position(at: Timestamp, id: &[u8]) -> (Timestamp, Option<DataKeyId>) {
    let mut bytes = [0; DataKeyId::LEN];
    let len = id.len().min(bytes.len());
    bytes[..len].copy_from_slice(&id[..len]);
    let number = u128::from_be_bytes(bytes);
    let longer = u128::from(id.len() > bytes.len());
    let behind = number.checked_add(longer).and_then(id_from);
    match behind {
        Some(id) => (at, Some(id)),
        // The row is the last one of its time.
        None => (
            Timestamp::from_micros(at.as_micros().saturating_add(1)),
            id_from(0),
        ),
    }
}

/// Finds the smallest data key id that is not less than a number; `None` if there is none.
fn id_from(number: u128) -> Option<DataKeyId> {
    const VERSION: u128 = 7 << 76;
    const VARIANT: u128 = 2 << 62;
    let number = match ((number >> 76) & 0xf, (number >> 62) & 0x3) {
        (7, 2) => number,
        (7, 3) => return id_from(((number >> 64) + 1) << 64),
        (7, _) => number >> 64 << 64 | VARIANT,
        (..7, _) => number >> 80 << 80 | VERSION | VARIANT,
        _ => ((number >> 80) + 1).checked_mul(1 << 80)? | VERSION | VARIANT,
    };
    DataKeyId::from_bytes(number.to_be_bytes()).ok()
}

/// Returns the greatest id, to start after a point in time.
#[cfg(feature = "sqlite")]
pub(crate) fn greatest_id() -> Option<DataKeyId> {
    DataKeyId::from_bytes(0xffff_ffff_ffff_7fff_bfff_ffff_ffff_ffff_u128.to_be_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use encx_core::store::CursorPosition;

    use super::*;

    fn number(uuid: &str) -> u128 {
        u128::from_str_radix(&uuid.replace('-', ""), 16).unwrap()
    }

    fn raw(at: i64, id: &[u8]) -> Result<RawChange, StoreError> {
        Ok(RawChange {
            at: Timestamp::from_micros(at),
            id: id.to_vec(),
            change: change_of(id, |_| Ok((vec![1; 32], "active".to_owned(), 1))),
        })
    }

    #[test]
    fn the_next_id_is_the_least_that_is_none_the_less() {
        for (from, to) in [
            (
                "00000000-0000-0000-0000-000000000000",
                "00000000-0000-7000-8000-000000000000",
            ),
            (
                "11111111-1111-4111-8111-111111111111",
                "11111111-1111-7000-8000-000000000000",
            ),
            (
                "11111111-1111-8111-8111-111111111111",
                "11111111-1112-7000-8000-000000000000",
            ),
            (
                "11111111-1111-7111-8111-111111111111",
                "11111111-1111-7111-8111-111111111111",
            ),
            (
                "11111111-1111-7111-7111-111111111111",
                "11111111-1111-7111-8000-000000000000",
            ),
            (
                "11111111-1111-7111-c111-111111111111",
                "11111111-1111-7112-8000-000000000000",
            ),
            (
                "11111111-1111-7fff-c000-000000000000",
                "11111111-1112-7000-8000-000000000000",
            ),
            (
                "ffffffff-ffff-7fff-bfff-ffffffffffff",
                "ffffffff-ffff-7fff-bfff-ffffffffffff",
            ),
        ] {
            let next = id_from(number(from)).unwrap();
            assert_eq!(u128::from_be_bytes(next.to_bytes()), number(to), "after {from}");
        }
        for none in [
            "ffffffff-ffff-7fff-c000-000000000000",
            "ffffffff-ffff-8000-8000-000000000000",
            "ffffffff-ffff-ffff-ffff-ffffffffffff",
        ] {
            assert_eq!(id_from(number(none)), None, "after {none}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_passed_and_nothing_else_is() {
        let good = DataKeyId::generate(1, None).unwrap();
        let bad = [
            vec![],
            vec![0x11; 16],
            vec![0xff; 16],
            [&good.to_bytes()[..], &[0]].concat(),
        ];
        for bad in &bad {
            let rows = [raw(5, &good.to_bytes()), raw(7, bad)];
            let horizon = Timestamp::from_micros(9);
            let begin = (Timestamp::from_micros(0), None);
            let page = page_of(&ChangeCursor::start(), begin, rows, horizon);
            assert_eq!((page.changes.len(), page.more), (1, false));
            let CursorPosition::At { at, after, .. } = page.next.position() else {
                panic!("{:?}", page.next);
            };
            let behind = (at.as_micros(), after.unwrap().to_bytes().to_vec());
            assert!(behind >= (7, bad.clone()), "{bad:?} is passed: {behind:?}");
            assert!(behind <= (8, id_from(0).unwrap().to_bytes().to_vec()));
        }
        // A page with only unreadable rows still advances.
        let rows = (0..1001_u128).map(|n| raw(7, &n.to_be_bytes()));
        let begin = (Timestamp::from_micros(0), None);
        let page = page_of(&ChangeCursor::start(), begin, rows, Timestamp::from_micros(9));
        assert_eq!((page.changes.len(), page.more), (0, true));
        let behind = ChangeCursor::at(Timestamp::from_micros(7), id_from(0));
        assert_eq!(page.next, behind);
    }
}
