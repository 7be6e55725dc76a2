//! From the values of records to ciphertexts: collected first, encrypted in one batch, handed out in the same order.

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::aad::Aad;
use crate::ciphertext::Ciphertext;
use crate::codec::{CodecError, Encoded};
use crate::context::EncryptionContext;
use crate::crypto::Crypto;

use super::error::{FieldFailure, RecordError};
use super::row::Row;

/// Takes the values of one record.
#[derive(Debug, Default)]
pub struct Sealing<'a> {
    values: Vec<Value<'a>>,
    failures: Vec<FieldFailure>,
}

#[derive(Debug)]
struct Value<'a> {
    name: Cow<'static, str>,
    bytes: Encoded<'a>,
    aad: Aad,
}

impl<'a> Sealing<'a> {
    /// Takes a value.
    pub fn field(
        &mut self,
        row: &Row<'_>,
        name: &'static str,
        column: &'static str,
        encoded: Result<Encoded<'a>, CodecError>,
    ) {
        let name = row.name(name);
        match encoded {
            Ok(bytes) => self.values.push(Value {
                name,
                bytes,
                aad: row.aad(column),
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

/// Hands out what became of the values of one record.
#[derive(Debug)]
pub struct Sealed {
    ciphertexts: VecDeque<Ciphertext>,
}

impl Sealed {
    /// Returns the next value's ciphertext.
    pub fn ciphertext(&mut self) -> Option<Ciphertext> {
        self.ciphertexts.pop_front()
    }
}

/// Encrypts the values of all records in one batch.
pub(super) async fn seal(
    crypto: &Crypto,
    contexts: &[EncryptionContext],
    records: Vec<Sealing<'_>>,
) -> Result<Vec<Sealed>, RecordError> {
    let records: Vec<_> = records.into_iter().map(|record| record.values).collect();
    let items: Vec<_> = records
        .iter()
        .zip(contexts)
        .flat_map(|(values, context)| {
            let values = values.iter();
            values.map(move |value| (context, value.bytes.as_bytes(), &value.aad))
        })
        .collect();
    let mut results = crypto.encrypt_many(items).await.into_iter();
    let mut failures = Vec::new();
    let mut sealed = Vec::with_capacity(records.len());
    for (row, values) in records.into_iter().enumerate() {
        let mut ciphertexts = VecDeque::with_capacity(values.len());
        for (value, result) in values.into_iter().zip(&mut results) {
            match result {
                Ok(ciphertext) => ciphertexts.push_back(ciphertext),
                Err(error) => failures.push(FieldFailure::new(value.name, error).in_row(row)),
            }
        }
        sealed.push(Sealed { ciphertexts });
    }
    RecordError::check(failures)?;
    Ok(sealed)
}
