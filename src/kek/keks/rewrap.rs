//! Moves a key to the KEKs that the KEK rule chooses now.

use encx_core::context::EncryptionContext;
use encx_core::key::{KekId, KeyUsage};
use encx_core::kms::{KmsContext, KmsOperation};
use encx_core::store::{KeyRecord, StoredWrap};

use super::{Call, Keks, is_by, keep_most_hopeful, not_allowed, push_new};
use crate::error::{Error, Location};
use crate::kek::{KekChoice, KekRef};

/// KEKs with their permanent names.
type Targets<'a> = Vec<(&'a KekRef, KekId)>;

impl Keks {
    /// Moves a record's key to the KEKs that the rule chooses now. `None` if it is already there.
    ///
    /// If a record has one wrap, the KMS moves it and vouches for it. If it has several, of which some would be
    /// dropped, each remaining one is opened first, so that the last good one is not dropped.
    pub(crate) async fn rewrap(
        &self,
        record: &KeyRecord,
        context: &EncryptionContext,
        usage: KeyUsage,
    ) -> Result<Option<Vec<StoredWrap>>, Error> {
        let choice = self.choose(context)?;
        let pairs = KmsContext::new(context, usage, record.id);
        let Some(first) = record.wraps.first() else {
            return Err(Error::Destroyed {
                id: record.id,
                at: Location::default(),
            });
        };
        let targets = self.targets(&choice).await?;
        if is_there(record, &targets) {
            return Ok(None);
        }
        let sources = self.allowed_wraps(record, &choice).await?;
        if sources.is_empty() {
            return Err(not_allowed(record, first));
        }
        let verify = record.wraps.len() > 1;
        let mut wraps = Vec::new();
        for (kek, name) in &targets {
            let wrap = self.move_to(kek, name, record, &sources, &pairs, verify).await?;
            push_new(&mut wraps, wrap);
        }
        wraps.sort_by(|a, b| (&a.kms, &a.wrapped.kek).cmp(&(&b.kms, &b.wrapped.kek)));
        Ok((wraps != record.wraps).then_some(wraps))
    }

    /// Tells whether [`rewrap`](Self::rewrap) would move a record's key, or why it may not be moved. Calls a KMS only
    /// to resolve an alias.
    pub(crate) async fn would_rewrap(
        &self,
        record: &KeyRecord,
        context: &EncryptionContext,
    ) -> Result<bool, Error> {
        let choice = self.choose(context)?;
        let Some(first) = record.wraps.first() else {
            return Err(Error::Destroyed {
                id: record.id,
                at: Location::default(),
            });
        };
        if is_there(record, &self.targets(&choice).await?) {
            return Ok(false);
        }
        if self.allowed_wraps(record, &choice).await?.is_empty() {
            return Err(not_allowed(record, first));
        }
        Ok(true)
    }

    /// Lists the KEKs that should wrap, with their permanent names.
    async fn targets<'a>(&self, choice: &'a KekChoice) -> Result<Targets<'a>, Error> {
        let mut targets = Targets::new();
        for kek in choice.wraps() {
            targets.push((kek, self.name(kek).await?));
        }
        Ok(targets)
    }

    /// Returns a wrap by one KEK: the existing one, or one that is moved from a source.
    async fn move_to(
        &self,
        kek: &KekRef,
        name: &KekId,
        record: &KeyRecord,
        sources: &[&StoredWrap],
        pairs: &KmsContext,
        verify: bool,
    ) -> Result<StoredWrap, Error> {
        if let Some(wrap) = record.wraps.iter().find(|wrap| is_by(wrap, kek, name)) {
            match self.open(record, wrap, pairs).await {
                Ok(_) => return Ok(wrap.clone()),
                // It may be good; that cannot be checked now.
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => {
                    let id = record.id;
                    tracing::warn!(target: "encx::refused", key = %id, %error, "replacing a wrap that does not open");
                }
            }
        }
        let mut failed = None;
        for source in sources.iter().filter(|source| source.kms == kek.kms) {
            let moved = self
                .call(
                    Call::new(&kek.kms, KmsOperation::RewrapKey, self.timeout),
                    |kms| kms.rewrap_key(&source.wrapped, pairs, &kek.kek),
                )
                .await
                .map(|wrapped| self.stored(kek, wrapped));
            let moved = match moved {
                Ok(wrap) if verify => self.open(record, &wrap, pairs).await.map(|_| wrap),
                moved => moved,
            };
            match moved {
                Ok(wrap) => return Ok(wrap),
                Err(error) => keep_most_hopeful(&mut failed, error),
            }
        }
        // From another KMS the key passes through this process.
        for source in sources.iter().filter(|source| source.kms != kek.kms) {
            match self.open(record, source, pairs).await {
                Ok(key) => {
                    let wrapped = self
                        .call(Call::new(&kek.kms, KmsOperation::WrapKey, self.timeout), |kms| {
                            kms.wrap_key(&kek.kek, &key, pairs)
                        })
                        .await?;
                    return Ok(self.stored(kek, wrapped));
                }
                Err(error) => keep_most_hopeful(&mut failed, error),
            }
        }
        Err(failed.unwrap_or(Error::Interrupted))
    }

    /// Selects the record's wraps that the rule allows, in the rule's order.
    pub(super) async fn allowed_wraps<'a>(
        &self,
        record: &'a KeyRecord,
        choice: &KekChoice,
    ) -> Result<Vec<&'a StoredWrap>, Error> {
        let mut allowed: Vec<&StoredWrap> = Vec::new();
        for kek in choice.allowed() {
            let candidates = || record.wraps.iter().filter(|wrap| wrap.kms == kek.kms);
            if candidates().next().is_none() {
                continue;
            }
            let name = match self.name(kek).await {
                Ok(name) => name,
                // The rule's retired KEKs may include one that no longer exists.
                Err(error) if !error.is_retryable() => continue,
                Err(error) => return Err(error),
            };
            let by_it: Vec<_> = candidates().filter(|wrap| is_by(wrap, kek, &name)).collect();
            allowed.extend(
                by_it
                    .into_iter()
                    .filter(|wrap| !allowed.contains(wrap))
                    .collect::<Vec<_>>(),
            );
        }
        Ok(allowed)
    }
}

/// Tells whether exactly these KEKs have wrapped a record.
fn is_there(record: &KeyRecord, targets: &Targets<'_>) -> bool {
    let is_target = |wrap: &StoredWrap| targets.iter().any(|(kek, name)| is_by(wrap, kek, name));
    let has_wrap = |(kek, name): &(&KekRef, KekId)| record.wraps.iter().any(|wrap| is_by(wrap, kek, name));
    targets.iter().all(has_wrap) && record.wraps.iter().all(is_target)
}
