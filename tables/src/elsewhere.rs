//! Finding where values belong that do not open in their rows, with bounded effort.

use std::collections::HashMap;

use encx::keys::{DataKeyId, KeyUsage};
use encx::store::{KeyRecord, KeyStore as _};
use encx::{Aad, Ciphertext, Crypto, EncryptionContext, Error};

use crate::cell::Id;
use crate::error::RowsError;
use crate::fault::{Elsewhere, Opens};
use crate::layout::Layout;
use crate::walk::Bound;

/// How many places are tried for all values of a batch. Each try takes about a microsecond and reads the
/// value.
const TRIES: usize = 10_000;

/// In how many other rows one value is tried, so that one does not use up the tries of all.
const NEIGHBOURS: usize = 1000;

/// Size limit in bytes for trying a value in other rows. Longer values are only tried in other columns of
/// their row.
const LONG: usize = 16 << 10;

/// Limit of key lookups per batch, for keys outside the row's context.
const LOOKUPS: usize = 100;

/// Limit of these keys that are unwrapped, by one KMS call each.
const FOREIGN: usize = 8;

/// A value that did not open in its row.
pub(crate) struct Refused {
    pub(crate) bound: Bound,
    pub(crate) cipher: Ciphertext,
    pub(crate) error: Error,
    /// Index of its row in the batch's ids.
    pub(crate) at: usize,
}

/// Finds where the values of one batch belong.
pub(crate) struct Search<'a> {
    crypto: &'a Crypto,
    layouts: &'a [Layout],
    column: usize,
    /// Ids of the batch's rows, in order.
    ids: &'a [Id],
    tries: usize,
    foreign: HashMap<DataKeyId, KeyRecord>,
    unwrapped: Vec<DataKeyId>,
}

impl<'a> Search<'a> {
    /// Looks up, in one call, the keys of refused values that are not in their contexts.
    pub(crate) async fn new(
        crypto: &'a Crypto,
        (layouts, column): (&'a [Layout], usize),
        ids: &'a [Id],
        refused: &[Refused],
    ) -> Result<Self, Error> {
        let mut unknown: Vec<_> = refused
            .iter()
            .filter(|refused| has_no_key(&refused.error))
            .map(|refused| refused.cipher.key_id())
            .collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown.truncate(LOOKUPS);
        let records = match unknown.is_empty() {
            true => Vec::new(),
            false => crypto.key_store().get(&unknown).await?,
        };
        Ok(Self {
            crypto,
            layouts,
            column,
            ids,
            tries: TRIES,
            foreign: records.into_iter().map(|record| (record.id, record)).collect(),
            unwrapped: Vec::new(),
        })
    }

    /// Explains why a value does not open, and where it belongs if that is found.
    pub(crate) async fn explain(&mut self, refused: &Refused) -> RowsError {
        let error = refused.error.clone();
        if let Error::Decrypt { .. } = error {
            return match self.find(&refused.bound.context, refused, false).await {
                Ok(opens @ (Opens::Here | Opens::In(_))) => elsewhere(None, None, opens, error),
                Ok(Opens::Nowhere(tried)) => RowsError::Damaged { tried, source: error },
                Ok(Opens::Untried) => RowsError::Damaged {
                    tried: 0,
                    source: error,
                },
                Err(failed) => failed.into(),
            };
        }
        let id = refused.cipher.key_id();
        let Some(record) = self.foreign.get(&id).filter(|_| has_no_key(&error)) else {
            return error.into();
        };
        // A key record with a forged context says nothing about the value.
        let Ok(context) = record.verified_context() else {
            return error.into();
        };
        let usage = Some(record.usage).filter(|usage| *usage != KeyUsage::Data);
        let is_other = context != refused.bound.context;
        if usage.is_some() {
            return elsewhere(Some(context).filter(|_| is_other), usage, Opens::Untried, error);
        }
        if !is_other {
            return error.into();
        }
        if !self.unwrapped.contains(&id) {
            if self.unwrapped.len() >= FOREIGN {
                return elsewhere(Some(context), None, Opens::Untried, error);
            }
            self.unwrapped.push(id);
        }
        // An unusable key, such as a suspended one, does not change where the value belongs.
        let opens = self.find(&context, refused, true).await;
        elsewhere(Some(context), None, opens.unwrap_or(Opens::Untried), error)
    }

    /// Tries a value in the other columns of its row, in the other rows of the batch and, if asked, in its
    /// own place.
    async fn find(
        &mut self,
        context: &EncryptionContext,
        refused: &Refused,
        in_its_own: bool,
    ) -> Result<Opens, Error> {
        let mut places: Vec<(Aad, Place)> = Vec::new();
        if in_its_own {
            places.push((refused.bound.aad.clone(), Place::Own));
        }
        let id = &refused.bound.row.id;
        for (at, other) in self.layouts.iter().enumerate() {
            let same_rows = other.described.sql_table == self.layout().described.sql_table
                && other.described.row_id == self.layout().described.row_id
                && at != self.column;
            if same_rows && let Ok(aad) = other.aad(id) {
                places.push((aad, Place::Column(at)));
            }
        }
        if refused.cipher.as_bytes().len() <= LONG {
            for other in nearest_first(refused.at, self.ids.len()).take(NEIGHBOURS) {
                if places.len() >= self.tries {
                    break;
                }
                if let Ok(aad) = self.layout().aad(&self.ids[other]) {
                    places.push((aad, Place::Row(other)));
                }
            }
        }
        places.truncate(self.tries);
        if places.is_empty() {
            return Ok(Opens::Untried);
        }
        self.tries -= places.len();
        let (aads, places): (Vec<_>, Vec<_>) = places.into_iter().unzip();
        let found = self.crypto.find_place(context, &refused.cipher, &aads).await?;
        Ok(match found.map(|found| &places[found]) {
            None => Opens::Nowhere(places.len()),
            Some(Place::Own) => Opens::Here,
            Some(Place::Column(other)) => Opens::In(self.layouts[*other].name_of(id)),
            Some(Place::Row(other)) => Opens::In(self.layout().name_of(&self.ids[*other])),
        })
    }

    fn layout(&self) -> &'a Layout {
        &self.layouts[self.column]
    }
}

enum Place {
    Own,
    Column(usize),
    Row(usize),
}

fn has_no_key(error: &Error) -> bool {
    matches!(error, Error::UnknownKey { .. } | Error::NoKeys | Error::Shredded)
}

fn elsewhere(
    context: Option<EncryptionContext>,
    usage: Option<KeyUsage>,
    opens: Opens,
    source: Error,
) -> RowsError {
    let found = Elsewhere {
        context,
        usage,
        opens,
    };
    RowsError::Elsewhere { found, source }
}

/// Returns the other indexes below `len`, nearest first: most mix-ups are between neighbours.
fn nearest_first(at: usize, len: usize) -> impl Iterator<Item = usize> {
    (1..len).flat_map(move |apart| {
        let before = at.checked_sub(apart);
        let behind = Some(at + apart).filter(|behind| *behind < len);
        before.into_iter().chain(behind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_come_first() {
        let near = |at, len| nearest_first(at, len).collect::<Vec<_>>();
        assert_eq!(near(2, 6), [1, 3, 0, 4, 5]);
        assert_eq!(near(0, 3), [1, 2]);
        assert!(near(0, 1).is_empty());
    }
}
