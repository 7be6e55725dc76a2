//! Facts from the audit log: rotations by month, and shredded contexts.

use std::collections::{BTreeMap, BTreeSet};

use encx::EncryptionContext;
use encx::keys::{KeyState, KeyUsage, Scope};
use encx::store::{
    AuditEntry, AuditLog, AuditQuery, AuditedPart, KeyRecord, KeyStore, StoreError, Timestamp,
};

use super::data::{AuditFacts, MonthFacts, ShredFacts, ShreddedContext};
use crate::context::describe;
use crate::record::moment;

const PAGE: u32 = 1000;

const MONTHS: usize = 24;

/// Scopes with destroyed keys that are looked up. Bounds memory.
const MAX_SCOPES: usize = 20_000;

/// Scopes loaded at once.
const BATCH: usize = 100;

/// The last destruction in a scope.
#[derive(Debug)]
pub(super) struct Destruction {
    reason: Option<String>,
    by: Option<String>,
}

/// The result of a walk over the audit log.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) facts: AuditFacts,
    destroyed: BTreeMap<Scope, Destruction>,
    is_cut_short: bool,
}

/// Reads the whole audit log, page by page.
///
/// # Cancellation
///
/// May be dropped at any time.
pub(super) async fn read(log: &dyn AuditLog, now: Timestamp) -> Result<History, StoreError> {
    let mut history = History::default();
    history.facts.months = last_months(&moment(now))
        .into_iter()
        .map(|month| MonthFacts {
            month,
            ..MonthFacts::default()
        })
        .collect();
    let mut query = AuditQuery::new(PAGE);
    loop {
        let page = log.audit_page(&query).await?;
        history.facts.unreadable += page.unreadable.len() as u64;
        for entry in page.entries {
            history.add(entry);
        }
        match page.next {
            Some(next) => query = query.after(next),
            None => return Ok(history),
        }
    }
}

impl History {
    fn add(&mut self, entry: AuditEntry) {
        let (facts, at) = (&mut self.facts, moment(entry.at));
        facts.entries += 1;
        facts.transitions += u64::from(entry.what == AuditedPart::State);
        facts.with_user += u64::from(entry.db_user.is_some());
        let month = facts
            .months
            .iter_mut()
            .find(|month| at.get(..7) == Some(&month.month));
        if let Some(month) = month {
            match (entry.what, entry.from, entry.to) {
                (AuditedPart::Added, _, KeyState::Active) => month.first_versions += 1,
                (AuditedPart::State, Some(KeyState::PreActive), KeyState::Active) => month.rotations += 1,
                (AuditedPart::State, _, KeyState::Destroyed) => month.destroyed += 1,
                _ => {}
            }
        }
        // Entries are in number order, which may differ from time order by seconds.
        facts.first_at.get_or_insert_with(|| at.clone());
        facts.last_at = Some(at);
        if entry.what == AuditedPart::State && entry.to == KeyState::Destroyed {
            if self.destroyed.len() >= MAX_SCOPES && !self.destroyed.contains_key(&entry.scope) {
                self.is_cut_short = true;
                return;
            }
            let by = [entry.db_user, entry.application];
            let by: Vec<_> = by.into_iter().flatten().collect();
            let destruction = Destruction {
                reason: entry.reason,
                by: (!by.is_empty()).then(|| by.join("/")),
            };
            self.destroyed.insert(entry.scope, destruction);
        }
    }

    /// Finds the contexts whose versions of every usage are destroyed.
    ///
    /// # Cancellation
    ///
    /// May be dropped at any time.
    pub(super) async fn shreddings(&self, store: &dyn KeyStore) -> Result<ShredFacts, StoreError> {
        let scopes: Vec<_> = self.destroyed.keys().copied().collect();
        let mut contexts = BTreeSet::new();
        for scopes in scopes.chunks(BATCH) {
            for record in store.load(scopes).await? {
                // An edited row does not prove its context. It counts as unreadable elsewhere.
                if record.state == KeyState::Destroyed && record.verified_context().is_ok() {
                    contexts.insert(record.context);
                }
            }
        }
        let mut found = ShredFacts {
            contexts: Vec::new(),
            is_cut_short: self.is_cut_short,
        };
        let contexts: Vec<_> = contexts.into_iter().collect();
        for contexts in contexts.chunks(BATCH / KeyUsage::ALL.len()) {
            let scopes: Vec<_> = contexts.iter().flat_map(scopes_of).collect();
            let mut records: BTreeMap<_, Vec<KeyRecord>> = BTreeMap::new();
            for record in store.load(&scopes).await? {
                records.entry(record.context.clone()).or_default().push(record);
            }
            for (context, versions) in records {
                if versions
                    .iter()
                    .all(|version| version.state == KeyState::Destroyed)
                {
                    found.contexts.push(self.shredded(&context, &versions));
                }
            }
        }
        found.contexts.sort_by(|a, b| b.destroyed_at.cmp(&a.destroyed_at));
        Ok(found)
    }

    fn shredded(&self, context: &BTreeMap<String, String>, versions: &[KeyRecord]) -> ShreddedContext {
        let destroyed = versions.iter().filter(|version| !version.is_tombstone());
        let last = destroyed.clone().max_by_key(|version| version.destroyed_at);
        let told = last.and_then(|version| self.destroyed.get(&version.scope));
        ShreddedContext {
            context: describe(context),
            versions: destroyed.count() as u64,
            destroyed_at: last.and_then(|version| version.destroyed_at).map(moment),
            reason: told.and_then(|told| told.reason.clone()),
            by: told.and_then(|told| told.by.clone()),
        }
    }
}

fn scopes_of(pairs: &BTreeMap<String, String>) -> Vec<Scope> {
    let context = EncryptionContext::from_pairs(pairs);
    let scopes = |context| KeyUsage::ALL.map(|usage| Scope::of(usage, &context)).to_vec();
    context.map(scopes).unwrap_or_default()
}

/// Lists the months up to that of `now`, such as `2026-11`, oldest first. Empty for a time outside the calendar.
fn last_months(now: &str) -> Vec<String> {
    let part = |range: std::ops::Range<usize>| now.get(range)?.parse::<usize>().ok();
    let (Some(year), Some(month)) = (part(0..4), part(5..7)) else {
        return Vec::new();
    };
    let last = (year * 12 + month).saturating_sub(1);
    (0..MONTHS)
        .rev()
        .filter_map(|back| last.checked_sub(back))
        .map(|month| format!("{:04}-{:02}", month / 12, month % 12 + 1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn months_go_back_over_years() {
        let months = last_months("2026-02-03T00:00:00Z");
        assert_eq!(months.len(), MONTHS);
        assert_eq!(months[MONTHS - 1], "2026-02");
        assert_eq!(months[MONTHS - 2], "2026-01");
        assert_eq!(months[MONTHS - 3], "2025-12");
        assert_eq!(months[0], "2024-03");
        assert!(last_months("-1 µs").is_empty());
    }
}
