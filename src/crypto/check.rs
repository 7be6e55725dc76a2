//! The checks of `build`: the key store answers, and its keys match the KEK rule.

use std::sync::Arc;
use std::time::Duration;

use encx_core::key::KeyState;
use encx_core::store::{KeyPage, KeyQuery, KeyRecord, KeyStore, StoreError};

use crate::clock::Clock;
use crate::error::Error;
use crate::kek::Keks;

/// How many records are read, to see whether there are any and to name one in an error.
const SAMPLE: u32 = 1;

/// Destroyed keys have no wraps.
const WRAPPED: [KeyState; 5] = [
    KeyState::Active,
    KeyState::PreActive,
    KeyState::Deactivated,
    KeyState::Suspended,
    KeyState::Compromised,
];

/// Checks that a `Crypto` on the key store and the KMSs can work.
pub(super) async fn check(
    keks: &Arc<Keks>,
    store: &dyn KeyStore,
    clock: &dyn Clock,
    timeout: Duration,
    require_kms: bool,
) -> Result<(), Error> {
    let page = |query: KeyQuery| async move {
        let query = WRAPPED.iter().fold(query, |query, state| query.state(*state));
        tokio::select! {
            biased;
            page = store.page(&query) => page.map_err(Error::from),
            () = clock.sleep(timeout) => Err(StoreError::unavailable(Silent(timeout)).into()),
        }
    };
    let KeyPage { records, .. } = page(KeyQuery::new(SAMPLE)).await?;
    let named = keks.check(require_kms).await?;
    // A record that has lost its wraps says nothing about KEKs. Its first use reports the loss.
    if records.iter().all(|record| record.wraps.is_empty()) || !named.complete {
        return Ok(());
    }
    for kek in &named.keks {
        let query = KeyQuery::new(1).wrapped_by(kek.kms.clone(), kek.kek.clone());
        if !page(query).await?.records.is_empty() {
            return Ok(());
        }
    }
    Err(Error::Config {
        what: foreign(&records),
    })
}

/// Describes a key store whose keys are wrapped by other KEKs.
fn foreign(records: &[KeyRecord]) -> String {
    let wrap = records.iter().find_map(|record| record.wraps.first());
    let by = wrap.map_or(String::new(), |wrap| {
        format!(
            "; the first is wrapped by `{}` of KMS `{}`",
            wrap.wrapped.kek, wrap.kms
        )
    });
    format!(
        "no data key in this key store is wrapped by a KEK that the KEK rule names{by}. Is this the right KEK file, KMS account or \
         database? If that KEK is retired, add it with `also_unwrap`. If others share the key store with KEKs of their \
         own and this service has no key yet, build with `connect_lazily()`"
    )
}

#[derive(Debug, thiserror::Error)]
#[error("it did not answer within {0:?}")]
struct Silent(Duration);
