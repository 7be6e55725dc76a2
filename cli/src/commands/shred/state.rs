//! A context's versions in the key store, and its rows in the declared columns.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use encx::EncryptionContext;
use encx::keys::{KeyState, KeyUsage, Scope};
use encx::store::{KeyQuery, KeyRecord, KeyStore};

use crate::exit::Refused;
use crate::receipts::Kek;

/// Maximum number of contexts in a plan.
const MAX_CONTEXTS: usize = 10_000;

const PAGE: u32 = 1000;

/// Loads the versions of all usages in id order. Tombstones are not keys, and are left out.
pub(super) async fn versions_of(store: &dyn KeyStore, context: &EncryptionContext) -> Result<Vec<KeyRecord>> {
    let scopes = KeyUsage::ALL.map(|usage| Scope::of(usage, context));
    let mut versions = store.load(&scopes).await?;
    for version in &versions {
        version.check_belongs(context, version.usage)?;
    }
    versions.retain(|version| !version.is_tombstone());
    versions.sort_by_key(|version| version.id);
    Ok(versions)
}

/// Lists the contexts that contain these pairs and have a key.
pub(super) async fn contexts_with(
    store: &dyn KeyStore,
    pairs: &BTreeMap<String, String>,
) -> Result<Vec<EncryptionContext>> {
    let mut query = KeyQuery::new(PAGE);
    for (key, value) in pairs {
        query = query.context_pair(key, value);
    }
    let mut found: BTreeMap<Vec<u8>, EncryptionContext> = BTreeMap::new();
    loop {
        let page = store.page(&query).await?;
        for record in page.records.iter().filter(|record| !record.is_tombstone()) {
            let context = record.verified_context()?;
            found.insert(context.canonical().to_vec(), context);
        }
        if found.len() > MAX_CONTEXTS {
            let what = format!(
                "more than {MAX_CONTEXTS} contexts have these pairs: name more pairs, and make a plan for each part"
            );
            return Err(Refused(what).into());
        }
        match page.next {
            Some(next) => query = query.after(next),
            None => return Ok(found.into_values().collect()),
        }
    }
}

/// Lists the KEKs that wrap these versions.
pub(super) fn keks_of(versions: &[KeyRecord]) -> Vec<Kek> {
    let wraps = versions.iter().flat_map(|version| &version.wraps);
    let keks: BTreeSet<_> = wraps
        .map(|wrap| Kek {
            kms: wrap.kms.to_string(),
            kek: wrap.wrapped.kek.to_string(),
        })
        .collect();
    keks.into_iter().collect()
}

pub(super) fn is_live(version: &KeyRecord) -> bool {
    version.state != KeyState::Destroyed
}

/// Lists what a shredding does not reach.
pub(super) fn survives(keks: &[Kek], rows_are_counted: bool) -> Vec<String> {
    let names: Vec<_> = keks
        .iter()
        .map(|kek| format!("{}:{}", kek.kms, kek.kek))
        .collect();
    let mut survives = Vec::new();
    if !names.is_empty() {
        survives.push(format!(
            "Backups of the key store's database: together with the right to unwrap under {} they bring the keys back. The \
             shredding is final when the last of them, or each of these KEKs, is gone.",
            names.join(", ")
        ));
    }
    survives.push(if rows_are_counted {
        "Rows of columns that are not declared: they become unreadable too, and were not counted.".to_owned()
    } else {
        "No column is declared: rows were not counted.".to_owned()
    });
    survives.push(
        "Plaintexts that services have written elsewhere, such as logs, exports and search engines: no key of this context \
         encrypts them."
            .to_owned(),
    );
    survives
}
