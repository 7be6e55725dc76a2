//! Decrypts rows: ciphertexts are collected, decrypted in one batch, and decoded in the same order.

use std::borrow::Cow;
use std::collections::VecDeque;

use encx_core::aad::Aad;
use encx_core::ciphertext::Ciphertext;
use encx_core::codec::CodecError;

use crate::error::Error;
use crate::plaintext::Plaintext;

use super::error::FieldFailure;
use super::row::{Bound, Row};

/// Collects the ciphertexts of one row.
#[derive(Debug, Default)]
pub struct Opening<'a> {
    pub(super) values: Vec<(Cow<'static, str>, &'a Ciphertext, Aad)>,
}

impl<'a> Opening<'a> {
    /// Adds a ciphertext.
    pub fn field(
        &mut self,
        row: &Row<'_>,
        name: &'static str,
        column: &'static str,
        ciphertext: &'a Ciphertext,
    ) {
        self.bound_field(row, name, column, &[], ciphertext);
    }

    /// Adds a ciphertext that is also bound to the values of other columns.
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

/// Returns the decrypted values of one row.
#[derive(Debug, Default)]
pub struct Opened {
    pub(super) values: VecDeque<(Cow<'static, str>, Result<Plaintext, Error>)>,
    pub(super) failures: Vec<FieldFailure>,
}

impl Opened {
    /// Decodes the next value; `None` if it failed, which is recorded.
    pub fn field<T>(&mut self, decode: impl FnOnce(&[u8]) -> Result<T, CodecError>) -> Option<T> {
        let (name, opened) = self.values.pop_front()?;
        let decoded = opened.and_then(|plaintext| Ok(decode(plaintext.as_bytes())?));
        decoded
            .map_err(|error| self.failures.push(FieldFailure::new(name, error)))
            .ok()
    }
}
