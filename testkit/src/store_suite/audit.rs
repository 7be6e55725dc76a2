//! Listing the audit log.

use std::collections::BTreeSet;
use std::sync::Arc;

use encx_core::key::KeyState::{Active, Deactivated, Destroyed, PreActive, Suspended};
use encx_core::key::{KeyState, KeyUsage};
use encx_core::store::{AuditEntry, AuditLog, AuditQuery, AuditedPart, KeyRecord, StateChange, WrapChange};

use super::support::{Family, Store, change, current, handles, new_id, wrap};
use super::{StoreFixture, StoreOffer};

/// The audit log of a handle from [`handles`].
fn audit(store: &Store) -> &dyn AuditLog {
    store.audit().unwrap()
}

/// Lists all entries of a query, page by page.
async fn list(store: &Store, query: &AuditQuery) -> Vec<AuditEntry> {
    let mut query = query.clone();
    let mut found = Vec::new();
    loop {
        let page = audit(store).audit_page(&query).await.unwrap();
        let limit = usize::try_from(query.limit).unwrap();
        assert!(page.entries.len() <= limit, "a page holds at most its limit");
        let last = page.entries.last().map(|entry| entry.number);
        found.extend(page.entries);
        let Some(next) = page.next else {
            break;
        };
        assert_eq!(
            Some(next),
            last,
            "the next page begins after this one's last entry"
        );
        query = query.after(next);
    }
    let numbers: BTreeSet<_> = found.iter().map(|entry| entry.number).collect();
    assert_eq!(numbers.len(), found.len(), "no two entries have one number");
    assert!(found.is_sorted_by_key(|entry| entry.number), "{found:#?}");
    found
}

pub(super) async fn every_change_leaves_an_entry(fixture: Arc<dyn StoreFixture>) {
    let Some([store, other]) = handles(&*fixture, StoreOffer::AuditLog).await else {
        return;
    };
    assert_eq!(list(&other, &AuditQuery::new(10)).await, []);
    let mut family = Family::new("audited");
    let mut expected = Vec::new();
    let mut log = |record: &KeyRecord, what, from: Option<KeyState>, reason: Option<&str>| {
        let (key, scope, at) = (record.id, record.scope, record.changed_at);
        expected.push((
            at,
            key,
            scope,
            what,
            from,
            record.state,
            reason.map(str::to_owned),
        ));
    };
    let first = store.insert(&family.next(Active).because("born")).await.unwrap();
    family.passed(first.id, first.version);
    log(&first, AuditedPart::Added, None, Some("born"));
    let second = family.add(&store, PreActive).await;
    log(&second, AuditedPart::Added, None, None);
    // A rotation changes two keys.
    let promotion = StateChange::new(&second, Active).because("rotated");
    let second = store.apply(&promotion).await.unwrap();
    let first = current(&store, first.id).await;
    log(&first, AuditedPart::State, Some(Active), Some("rotated"));
    log(&second, AuditedPart::State, Some(PreActive), Some("rotated"));
    let second = change(&store, &second, Suspended).await.unwrap();
    log(&second, AuditedPart::State, Some(Active), None);
    // A key that was suspended while active changes its return state, and stays suspended.
    let third = family.add(&store, Active).await;
    let second = current(&store, second.id).await;
    log(&second, AuditedPart::State, Some(Suspended), None);
    log(&third, AuditedPart::Added, None, None);
    let rewrap = WrapChange::new(&third, vec![wrap("kek-2", 2)]).because("moved");
    let rewrapped = store
        .replace_wraps(std::slice::from_ref(&rewrap))
        .await
        .unwrap()
        .remove(0);
    log(
        &rewrapped.result.unwrap(),
        AuditedPart::Wraps,
        Some(Active),
        Some("moved"),
    );
    let destroyed = change(&store, &first, Destroyed).await.unwrap();
    log(&destroyed, AuditedPart::State, Some(Deactivated), None);
    // A refused change leaves no entry.
    change(&store, &first, Destroyed).await.unwrap_err();
    store.replace_wraps(&[rewrap]).await.unwrap()[0]
        .result
        .as_ref()
        .unwrap_err();

    let found = list(&other, &AuditQuery::new(3)).await;
    let mut found: Vec<_> = found
        .into_iter()
        .map(|entry| {
            let AuditEntry {
                at, key, scope, what, ..
            } = entry;
            (at, key, scope, what, entry.from, entry.to, entry.reason)
        })
        .collect();
    assert!(found.is_sorted_by_key(|entry| entry.0), "in the order of time");
    // The entries of one change may come in either order.
    found.sort_by_key(|entry| (entry.0, entry.1));
    expected.sort_by_key(|entry| (entry.0, entry.1));
    assert_eq!(found, expected);
}

pub(super) async fn the_audit_log_is_filtered_and_paged(fixture: Arc<dyn StoreFixture>) {
    type Filter = Box<dyn Fn(&AuditEntry) -> bool + Send + Sync>;
    let Some([store, other]) = handles(&*fixture, StoreOffer::AuditLog).await else {
        return;
    };
    let mut families = [
        Family::of(KeyUsage::Data, &[("tenantId", "a")]),
        Family::of(KeyUsage::Index, &[("tenantId", "a")]),
        Family::of(KeyUsage::Data, &[("tenantId", "b")]),
    ];
    for _ in 0..2 {
        for family in &mut families {
            let record = family.add(&store, PreActive).await;
            change(&store, &record, Active).await.unwrap();
        }
    }
    let all = list(&other, &AuditQuery::new(1000)).await;
    // Each first version was added, promoted and deactivated, each second added and promoted.
    assert_eq!(all.len(), 3 * 5);
    let (key, scope) = (all[0].key, families[1].scope());
    let other_scope = families[2].scope();
    let (since, until) = (all[4].at, all[9].at);
    let number = all[6].number;
    let query = || AuditQuery::new(1000);
    let cases: Vec<(&str, AuditQuery, usize, Filter)> = vec![
        ("key", query().key(key), 3, Box::new(move |e| e.key == key)),
        ("unknown key", query().key(new_id(None)), 0, Box::new(|_| false)),
        (
            "scope",
            query().scope(scope),
            5,
            Box::new(move |e| e.scope == scope),
        ),
        (
            "unknown scope",
            query().scope(Family::new("unknown").scope()),
            0,
            Box::new(|_| false),
        ),
        (
            "key of another scope",
            query().key(key).scope(scope),
            0,
            Box::new(|_| false),
        ),
        (
            "since",
            query().since(since),
            11,
            Box::new(move |e| e.at >= since),
        ),
        ("until", query().until(until), 9, Box::new(move |e| e.at < until)),
        (
            "after",
            query().after(number),
            8,
            Box::new(move |e| e.number > number),
        ),
        (
            "since, until and scope",
            query().since(since).until(until).scope(other_scope),
            2,
            Box::new(move |e| e.at >= since && e.at < until && e.scope == other_scope),
        ),
        (
            "key and moments",
            query().since(since).until(until).key(key),
            1,
            Box::new(move |e| e.at >= since && e.at < until && e.key == key),
        ),
    ];
    for (what, query, count, filter) in cases {
        let expected: Vec<_> = all.iter().filter(|entry| filter(entry)).cloned().collect();
        assert_eq!(expected.len(), count, "{what}");
        for limit in [1000, 2, 1] {
            let mut query = query.clone();
            query.limit = limit;
            assert_eq!(list(&store, &query).await, expected, "{what}, {limit} a page");
        }
    }
}
