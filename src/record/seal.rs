//! Encrypts records: values are collected, encrypted in one batch, and returned in the same order.

use std::borrow::Cow;
use std::collections::VecDeque;

use encx_core::aad::Aad;
use encx_core::blind_index::BlindIndex;
use encx_core::ciphertext::Ciphertext;
use encx_core::codec::{CodecError, Encoded};
use encx_core::context::{ContextError, EncryptionContext};
use encx_core::key::KeyUsage;

use crate::crypto::Crypto;
use crate::error::Error;
#[cfg(feature = "password")]
use crate::password::PasswordHash;
use crate::search::{IndexField, IndexValue, Message};

use super::error::{FieldFailure, RecordError};
#[cfg(feature = "password")]
use super::password::{Form, Password};
use super::row::{Bound, Row};

/// Collects the values of one record.
#[derive(Default)]
pub struct Sealing<'a> {
    values: Vec<Item<(Encoded<'a>, Aad)>>,
    indexes: Vec<Item<(Own, Message)>>,
    #[cfg(feature = "password")]
    passwords: Vec<Item<OfPassword<'a>>>,
    failures: Vec<FieldFailure>,
}

/// A value of a field.
struct Item<T> {
    name: Cow<'static, str>,
    what: T,
}

/// A context of its own, instead of the record's.
type Own = Option<EncryptionContext>;

#[cfg(feature = "password")]
type OfPassword<'a> = (Own, &'a Form, Aad);

/// The items of a batch, by their records, and their results in the same order.
struct Done<I, T> {
    records: Vec<Vec<Item<I>>>,
    results: Vec<Result<T, Error>>,
}

impl<'a> Sealing<'a> {
    /// Has room for so many values: growing moves them, which is slow.
    pub(super) fn with_room_for(values: usize) -> Self {
        Self {
            values: Vec::with_capacity(values),
            ..Self::default()
        }
    }

    pub(super) fn values(&self) -> usize {
        self.values.len()
    }

    /// Adds a value.
    pub fn field(
        &mut self,
        row: &Row<'_>,
        name: &'static str,
        column: &'static str,
        encoded: Result<Encoded<'a>, CodecError>,
    ) {
        self.bound_field(row, name, column, &[], encoded);
    }

    /// Adds a value that is also bound to the values of other columns.
    pub fn bound_field(
        &mut self,
        row: &Row<'_>,
        name: &'static str,
        column: &'static str,
        bound: Bound<'_>,
        encoded: Result<Encoded<'a>, CodecError>,
    ) {
        let name = row.name(name);
        match encoded {
            Ok(bytes) => self.values.push(Item {
                name,
                what: (bytes, row.bound_aad(column, bound)),
            }),
            Err(error) => self.fail(FieldFailure::new(name, error)),
        }
    }

    /// Adds a value of a blind index.
    pub fn index(
        &mut self,
        name: &'static str,
        index: &IndexField,
        own: Option<Result<EncryptionContext, ContextError>>,
        value: &impl IndexValue,
    ) {
        let message = index.message(value);
        match (own.transpose(), message) {
            (Ok(own), Ok(message)) => self.indexes.push(Item {
                name: name.into(),
                what: (own, message),
            }),
            (Err(error), _) => self.fail(FieldFailure::new(name, error)),
            (_, Err(error)) => self.fail(FieldFailure::new(name, error)),
        }
    }

    /// Adds a password.
    #[cfg(feature = "password")]
    pub fn password(
        &mut self,
        row: &Row<'_>,
        name: &'static str,
        column: &'static str,
        own: Option<Result<EncryptionContext, ContextError>>,
        password: &'a Password,
    ) {
        match own.transpose() {
            Ok(own) => self.passwords.push(Item {
                name: name.into(),
                what: (own, password.form(), row.aad(column)),
            }),
            Err(error) => self.fail(FieldFailure::new(name, error)),
        }
    }

    pub(super) fn fail(&mut self, failure: FieldFailure) {
        self.failures.push(failure);
    }

    pub(super) fn take_failures(&mut self) -> impl Iterator<Item = FieldFailure> + use<'_, 'a> {
        self.failures.drain(..)
    }
}

impl std::fmt::Debug for Sealing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealing")
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}

/// Returns the ciphertexts, indexes and hashes of one record.
#[derive(Debug, Default)]
pub struct Sealed {
    ciphertexts: VecDeque<Ciphertext>,
    indexes: VecDeque<BlindIndex>,
    #[cfg(feature = "password")]
    hashes: VecDeque<PasswordHash>,
}

impl Sealed {
    /// Returns the next value's ciphertext.
    pub fn ciphertext(&mut self) -> Option<Ciphertext> {
        self.ciphertexts.pop_front()
    }

    /// Returns the next blind index.
    pub fn index(&mut self) -> Option<BlindIndex> {
        self.indexes.pop_front()
    }

    /// Returns the next password's hash.
    #[cfg(feature = "password")]
    pub fn hash(&mut self) -> Option<PasswordHash> {
        self.hashes.pop_front()
    }
}

/// Encrypts the values of all records in one batch, and computes their indexes and hashes.
pub(super) async fn seal(
    crypto: &Crypto,
    contexts: &[EncryptionContext],
    records: Vec<Sealing<'_>>,
) -> Result<Vec<Sealed>, RecordError> {
    let mut failures = Vec::new();
    let mut sealed: Vec<_> = records.iter().map(|_| Sealed::default()).collect();
    let mut values = Vec::with_capacity(records.len());
    let mut indexes = Vec::with_capacity(records.len());
    #[cfg(feature = "password")]
    let mut passwords = Vec::with_capacity(records.len());
    for record in records {
        values.push(record.values);
        indexes.push(record.indexes);
        #[cfg(feature = "password")]
        passwords.push(record.passwords);
    }
    let done = encrypt(crypto, contexts, values).await;
    hand_out(done, &mut sealed, &mut failures, |sealed| &mut sealed.ciphertexts);
    let done = index(crypto, contexts, indexes).await;
    hand_out(done, &mut sealed, &mut failures, |sealed| &mut sealed.indexes);
    #[cfg(feature = "password")]
    {
        let done = hash(crypto, contexts, passwords).await;
        hand_out(done, &mut sealed, &mut failures, |sealed| &mut sealed.hashes);
    }
    failures.sort_by_key(|failure| failure.row);
    RecordError::check(failures)?;
    Ok(sealed)
}

fn hand_out<I, T>(
    done: Done<I, T>,
    sealed: &mut [Sealed],
    failures: &mut Vec<FieldFailure>,
    queue: impl Fn(&mut Sealed) -> &mut VecDeque<T>,
) {
    let mut results = done.results.into_iter();
    for (row, (record, sealed)) in done.records.into_iter().zip(sealed).enumerate() {
        let queue = queue(sealed);
        queue.reserve(record.len());
        for (item, result) in record.into_iter().zip(&mut results) {
            match result {
                Ok(value) => queue.push_back(value),
                Err(error) => failures.push(FieldFailure::new(item.name, error).in_row(row)),
            }
        }
    }
}

async fn encrypt<'a>(
    crypto: &Crypto,
    contexts: &[EncryptionContext],
    records: Vec<Vec<Item<(Encoded<'a>, Aad)>>>,
) -> Done<(Encoded<'a>, Aad), Ciphertext> {
    let items: Vec<_> = records
        .iter()
        .zip(contexts)
        .flat_map(|(values, context)| {
            let values = values.iter();
            values.map(
                move |Item {
                          what: (bytes, aad), ..
                      }| (context, bytes.as_bytes(), aad),
            )
        })
        .collect();
    let results = crypto.encrypt_many(items).await;
    Done { records, results }
}

async fn index(
    crypto: &Crypto,
    contexts: &[EncryptionContext],
    records: Vec<Vec<Item<(Own, Message)>>>,
) -> Done<(), BlindIndex> {
    let mut items = Vec::new();
    let mut named = Vec::with_capacity(records.len());
    for (record, context) in records.into_iter().zip(contexts) {
        let mut names_of_record = Vec::with_capacity(record.len());
        for Item {
            name,
            what: (own, message),
        } in record
        {
            let entry = crypto.entry_of(own.as_ref().unwrap_or(context), KeyUsage::Index);
            names_of_record.push(Item { name, what: () });
            items.push(Ok((entry, message)));
        }
        named.push(names_of_record);
    }
    let results = crypto.blind_indexes_of(items).await;
    Done {
        records: named,
        results,
    }
}

/// Hashes new passwords concurrently. A `Crypto` bounds the memory.
#[cfg(feature = "password")]
async fn hash<'a>(
    crypto: &Crypto,
    contexts: &[EncryptionContext],
    records: Vec<Vec<Item<OfPassword<'a>>>>,
) -> Done<OfPassword<'a>, PasswordHash> {
    let mut hashes = Vec::new();
    for (record, context) in records.iter().zip(contexts) {
        for Item {
            what: (own, form, aad),
            ..
        } in record
        {
            let context = own.as_ref().unwrap_or(context);
            hashes.push(async move {
                match form {
                    Form::New(text) => crypto.hash_password(context, text.as_str(), aad).await,
                    Form::Stored(hash) => Ok(hash.clone()),
                }
            });
        }
    }
    let results = futures_util::future::join_all(hashes).await;
    Done { records, results }
}
