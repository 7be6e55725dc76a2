//! Adds wraps that the KEK rule requires and a record lacks, as when a KMS was down while its key was made.

use std::collections::HashMap;

use encx_core::context::EncryptionContext;
use encx_core::key::KeyUsage;
use encx_core::kms::{KmsContext, KmsOperation};
use encx_core::store::{KeyRecord, StoredWrap};

use super::{Call, Keks, is_by, push_new};
use crate::error::Error;
use crate::kek::KekRef;

/// How often a KEK may be unreachable before a job stops asking for it.
const PATIENCE: u32 = 3;

/// The KEKs that a job could not reach, and how often in a row, so that it does not wait again for
/// each of thousands of keys.
#[derive(Debug, Default)]
pub(crate) struct Unreachable(HashMap<KekRef, (u32, Error)>);

impl Unreachable {
    fn given_up(&self, kek: &KekRef) -> Result<(), Error> {
        match self.0.get(kek) {
            Some((times, error)) if *times >= PATIENCE => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn learn<T>(&mut self, kek: &KekRef, result: &Result<T, Error>) {
        match result {
            Err(error) if error.is_retryable() => {
                let times = self.0.get(kek).map_or(0, |(times, _)| *times) + 1;
                self.0.insert(kek.clone(), (times, error.clone()));
            }
            _ => {
                self.0.remove(kek);
            }
        }
    }
}

/// The result of completing a record.
#[derive(Debug)]
pub(crate) struct Completed {
    /// All wraps of the record, if there are new ones.
    pub(crate) wraps: Option<Vec<StoredWrap>>,
    /// Why a wrap is still missing.
    pub(crate) failed: Option<Error>,
}

impl Keks {
    /// Lists the KEKs that the rule requires and that have not wrapped a record.
    pub(crate) async fn missing(
        &self,
        record: &KeyRecord,
        context: &EncryptionContext,
    ) -> Result<Vec<KekRef>, Error> {
        let mut missing = Vec::new();
        for kek in self.choose(context)?.wraps() {
            match self.has_wrap_by(record, kek).await {
                Ok(true) => {}
                Ok(false) => missing.push(kek.clone()),
                // Its wrap is probably missing because it is unreachable.
                Err(error) if error.is_retryable() => missing.push(kek.clone()),
                Err(error) => return Err(error),
            }
        }
        Ok(missing)
    }

    /// Adds the wraps that the rule requires and a record lacks, as far as their KEKs can be reached.
    ///
    /// The key is first unwrapped by any allowed wrap, and checked: only this record's key is ever wrapped again.
    pub(crate) async fn complete(
        &self,
        record: &KeyRecord,
        context: &EncryptionContext,
        usage: KeyUsage,
        unreachable: &mut Unreachable,
    ) -> Result<Completed, Error> {
        let choice = self.choose(context)?;
        let pairs = KmsContext::new(context, usage, record.id);
        let (mut wraps, mut key, mut failed) = (record.wraps.clone(), None, None);
        for kek in choice.wraps() {
            // What is known without a call to the KEK counts, even for one that the job has stopped asking.
            if self.is_known_to_wrap(record, kek) {
                continue;
            }
            let wrapped = async {
                unreachable.given_up(kek)?;
                let has_wrap = self.has_wrap_by(record, kek).await;
                if has_wrap.is_err() {
                    unreachable.learn(kek, &has_wrap);
                }
                if has_wrap? {
                    return Ok(None);
                }
                // A source that does not answer says nothing about this KEK.
                let key = match &key {
                    Some(key) => key,
                    None => key.insert(self.unwrap(record, context, usage).await?),
                };
                let wrapped = self
                    .call(
                        Call::new(&kek.kms, KmsOperation::WrapKey, self.share_of_time(2)),
                        |kms| kms.wrap_key(&kek.kek, key, &pairs),
                    )
                    .await;
                unreachable.learn(kek, &wrapped);
                wrapped.map(Some)
            }
            .await;
            match wrapped {
                Ok(None) => {}
                Ok(Some(wrapped)) => push_new(&mut wraps, self.stored(kek, wrapped)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        wraps.sort_by(|a, b| (&a.kms, &a.wrapped.kek).cmp(&(&b.kms, &b.wrapped.kek)));
        let wraps = (wraps.len() > record.wraps.len()).then_some(wraps);
        Ok(Completed { wraps, failed })
    }

    /// Tells whether a KEK has wrapped a record. Asks for the KEK's permanent name only if necessary.
    async fn has_wrap_by(&self, record: &KeyRecord, kek: &KekRef) -> Result<bool, Error> {
        if self.is_known_to_wrap(record, kek) {
            return Ok(true);
        }
        let name = self.name(kek).await?;
        Ok(record.wraps.iter().any(|wrap| is_by(wrap, kek, &name)))
    }

    /// Tells whether a KEK has wrapped a record, under its name in the rule or its known permanent name.
    fn is_known_to_wrap(&self, record: &KeyRecord, kek: &KekRef) -> bool {
        let name = self.known_name(kek);
        let mut wraps = record.wraps.iter();
        wraps.any(|wrap| is_by(wrap, kek, &kek.kek) || is_by(wrap, kek, &name))
    }
}
