//! From the ciphertexts of rows to values: collected first, decrypted in one batch, decoded in the same order.

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::aad::Aad;
use crate::ciphertext::Ciphertext;
use crate::codec::CodecError;
use crate::crypto::Crypto;
use crate::error::Error;
use crate::plaintext::Plaintext;

use super::EncryptedRecord;
use super::error::{FieldFailure, RecordError};
use super::row::{Bound, Row};

/// Takes the ciphertexts of one row.
#[derive(Debug, Default)]
pub struct Opening<'a> {
    values: Vec<(Cow<'static, str>, &'a Ciphertext, Aad)>,
}

impl<'a> Opening<'a> {
    /// Takes a ciphertext.
    pub fn field(
        &mut self,
        row: &Row<'_>,
        name: &'static str,
        column: &'static str,
        ciphertext: &'a Ciphertext,
    ) {
        self.bound_field(row, name, column, &[], ciphertext);
    }

    /// Takes a ciphertext that is bound to the values of other columns, too.
    pub fn bound_field(
        &mut self,
        row: &Row<'_>,
        name: &'static str,
        column: &'static str,
        bound: Bound<'_>,
        ciphertext: &'a Ciphertext,
    ) {
        let aad = row.bound_aad(column, bound);
        self.values.push((row.name(name), ciphertext, aad));
    }
}

/// Hands out what became of the ciphertexts of one row.
#[derive(Debug, Default)]
pub struct Opened {
    values: VecDeque<(Cow<'static, str>, Result<Plaintext, Error>)>,
    failures: Vec<FieldFailure>,
}

impl Opened {
    /// Decodes the next value; `None` if it failed, which is remembered.
    pub fn field<T>(&mut self, decode: impl FnOnce(&[u8]) -> Result<T, CodecError>) -> Option<T> {
        let (name, opened) = self.values.pop_front()?;
        let decoded = opened.and_then(|plaintext| Ok(decode(plaintext.as_bytes())?));
        decoded
            .map_err(|error| self.failures.push(FieldFailure::new(name, error)))
            .ok()
    }
}

/// Decrypts rows in one batch.
pub(super) async fn open_rows<P, R>(crypto: &Crypto, rows: Vec<R>) -> Vec<Result<P, RecordError>>
where
    R: EncryptedRecord<P>,
{
    let opened = open(crypto, &rows).await;
    let rows = rows.into_iter().zip(opened);
    rows.enumerate()
        .map(|(at, (row, opened))| {
            opened
                .and_then(|opened| put_together(row, opened))
                .map_err(|error| error.in_row(at))
        })
        .collect()
}

async fn open<P, R>(crypto: &Crypto, rows: &[R]) -> Vec<Result<Opened, RecordError>>
where
    R: EncryptedRecord<P>,
{
    let contexts: Vec<_> = rows.iter().map(EncryptedRecord::context).collect();
    let mut names = Vec::with_capacity(rows.len());
    let mut items = Vec::new();
    for (row, context) in rows.iter().zip(&contexts) {
        let mut names_of_row = Vec::new();
        if let Ok(context) = context {
            let mut opening = Opening::default();
            row.collect(&mut opening);
            for (name, ciphertext, aad) in opening.values {
                names_of_row.push(name);
                items.push((context, ciphertext, aad));
            }
        }
        names.push(names_of_row);
    }
    let mut results = crypto.decrypt_many(items).await.into_iter();
    let hand_out = |(names, context): (Vec<_>, Result<_, _>)| {
        let values = names.into_iter().zip(&mut results).collect();
        let failures = Vec::new();
        match context {
            Ok(_) => Ok(Opened { values, failures }),
            Err(error) => Err(FieldFailure::of_context(error).into()),
        }
    };
    names.into_iter().zip(contexts).map(hand_out).collect()
}

/// Decodes every value, so that every field that fails is named, and returns the record only if none did.
fn put_together<P, R: EncryptedRecord<P>>(row: R, mut opened: Opened) -> Result<P, RecordError> {
    let record = row.assemble(&mut opened);
    RecordError::check(opened.failures)?;
    record.ok_or_else(|| FieldFailure::misaligned().into())
}
