//! Listing keys page by page.

use std::collections::BTreeMap;
use std::sync::Arc;

use encx_core::key::{KekId, KeyState, KeyUsage, KmsName};
use encx_core::store::{KekUse, KeyCount, KeyQuery, KeyRecord, WrapChange};

use super::StoreFixture;
use super::support::{Family, Store, change, list, wrap};

pub(super) async fn pages_list_every_key_once_while_keys_are_added(fixture: Arc<dyn StoreFixture>) {
    let (store, other) = (fixture.open().await, fixture.open().await);
    let mut families: Vec<_> = (0..6).map(|n| Family::new(&format!("t-{n}"))).collect();
    let mut before = Vec::new();
    for _ in 0..5 {
        for family in &mut families {
            before.push(family.add(&store, KeyState::PreActive).await.id);
        }
    }
    let writer = tokio::spawn(async move {
        for round in 0..10 {
            for family in &mut families {
                family.add(&other, KeyState::PreActive).await;
            }
            Family::new(&format!("new-{round}"))
                .add(&other, KeyState::Active)
                .await;
        }
    });
    for limit in [1, 7, 1000] {
        let mut seen = BTreeMap::new();
        let listed = list(&store, &KeyQuery::new(limit)).await;
        assert!(listed.is_sorted_by_key(|record| record.id), "in the order of ids");
        for record in listed {
            *seen.entry(record.id).or_insert(0) += 1;
        }
        for id in &before {
            assert_eq!(seen.get(id), Some(&1), "{id} is listed once, {limit} a page");
        }
        assert!(
            seen.values().all(|times| *times == 1),
            "no key is listed twice, {limit} a page"
        );
    }
    writer.await.unwrap();
    assert_eq!(list(&store, &KeyQuery::new(13)).await.len(), 30 + 70);
}

pub(super) async fn pages_end_where_the_keys_end(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let empty = store.page(&KeyQuery::new(5)).await.unwrap();
    assert_eq!((empty.records.len(), empty.next), (0, None));
    let mut family = Family::new("ends");
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(family.add(&store, KeyState::PreActive).await.id);
    }
    for limit in [1, 2, 3, 5, 6, 7] {
        let listed = list(&store, &KeyQuery::new(limit)).await;
        let listed: Vec<_> = listed.iter().map(|record| record.id).collect();
        assert_eq!(listed, ids, "{limit} a page");
    }
    let page = store.page(&KeyQuery::new(6)).await.unwrap();
    assert_eq!(page.next, None, "a full page that is the last says so");
    let page = store.page(&KeyQuery::new(5).after(ids[2])).await.unwrap();
    assert_eq!(page.records.len(), 3, "only keys after the given one");
    let page = store.page(&KeyQuery::new(5).after(ids[5])).await.unwrap();
    assert_eq!((page.records.len(), page.next), (0, None));
}

/// Adds keys of two usages in three scopes, of every state, under different KEKs.
async fn mixture(store: &Store) -> Vec<KeyRecord> {
    let mut data = Family::of(KeyUsage::Data, &[("tenantId", "a")]);
    let mut index = Family::of(KeyUsage::Index, &[("tenantId", "a")]);
    let mut other = Family::of(KeyUsage::Data, &[("tenantId", "b")]);
    for family in [&mut data, &mut index, &mut other] {
        for _ in 0..4 {
            let record = family.add(store, KeyState::PreActive).await;
            change(store, &record, KeyState::Active).await.unwrap();
        }
        family.add(store, KeyState::PreActive).await;
        let records = family.load(store).await;
        change(store, &records[0], KeyState::Destroyed).await.unwrap();
        change(store, &records[1], KeyState::Suspended).await.unwrap();
        if family.usage == KeyUsage::Data {
            change(store, &records[2], KeyState::Compromised).await.unwrap();
        }
        let mut eu = wrap("kek-1", 3);
        eu.kms = KmsName::new("eu").unwrap();
        let rewraps = [
            WrapChange::new(&records[3], vec![wrap("kek-1", 3), wrap("kek-2", 3)]),
            WrapChange::new(&records[4], vec![wrap("kek-2", 4), eu]),
        ];
        for outcome in store.replace_wraps(&rewraps).await.unwrap() {
            outcome.result.unwrap();
        }
    }
    list(store, &KeyQuery::new(1000)).await
}

pub(super) async fn filters_list_what_matches(fixture: Arc<dyn StoreFixture>) {
    type Filter = Box<dyn Fn(&KeyRecord) -> bool + Send + Sync>;
    let store = fixture.open().await;
    mixture(&store).await;
    // Contexts that share pairs, and texts that a database could mistake for its own syntax.
    let odd = r#"a","tenantId":"b\\%_'{}ü🔑"#;
    for (tenant, purpose) in [
        ("a", "pii"),
        ("b", "pii"),
        ("c", "logs"),
        (odd, "pii"),
        ("1", odd),
    ] {
        let pairs = [("tenantId", tenant), ("purpose", purpose)];
        let mut family = Family::of(KeyUsage::Data, &pairs);
        family.add(&store, KeyState::Active).await;
        family.add(&store, KeyState::PreActive).await;
    }
    let all = list(&store, &KeyQuery::new(1000)).await;
    assert_eq!(all.len(), 15 + 10);
    let pairs = |pairs: &'static [(&str, &str)]| -> Filter {
        Box::new(move |record| {
            let held = |(key, value): &(&str, &str)| record.context.get(*key).is_some_and(|v| v == value);
            pairs.iter().all(held)
        })
    };
    let kek = |name: &str| KekId::new(name).unwrap();
    let named = |name: &str| KmsName::new(name).unwrap();
    let has = |kms: &'static str, kek: &'static str| -> Filter {
        Box::new(move |record| {
            let mut wraps = record.wraps.iter();
            wraps.any(|wrap| wrap.kms.as_str() == kms && wrap.wrapped.kek.as_str() == kek)
        })
    };
    let scope = Family::of(KeyUsage::Data, &[("tenantId", "a")]).scope();
    // Two of its versions became active before this moment, and two did not.
    let mut moments: Vec<_> = all
        .iter()
        .filter(|record| record.scope == scope)
        .filter_map(|record| record.activated_at)
        .collect();
    moments.sort();
    let moment = moments[2];
    let query = || KeyQuery::new(1000);
    let cases: Vec<(&str, KeyQuery, Filter)> = vec![
        ("scope", query().scope(scope), Box::new(move |r| r.scope == scope)),
        (
            "unknown scope",
            query().scope(Family::new("unknown").scope()),
            Box::new(|_| false),
        ),
        (
            "usage",
            query().usage(KeyUsage::Index),
            Box::new(|r| r.usage == KeyUsage::Index),
        ),
        (
            "unused usage",
            query().usage(KeyUsage::Pepper),
            Box::new(|_| false),
        ),
        (
            "one state",
            query().state(KeyState::Suspended),
            Box::new(|r| r.state == KeyState::Suspended),
        ),
        (
            "three states, one twice",
            query()
                .state(KeyState::Active)
                .state(KeyState::Destroyed)
                .state(KeyState::Active)
                .state(KeyState::PreActive),
            Box::new(|r| {
                matches!(
                    r.state,
                    KeyState::Active | KeyState::Destroyed | KeyState::PreActive
                )
            }),
        ),
        (
            "KEK",
            query().wrapped_by(named("default"), kek("kek-2")),
            has("default", "kek-2"),
        ),
        (
            "KEK of another KMS",
            query().wrapped_by(named("eu"), kek("kek-1")),
            has("eu", "kek-1"),
        ),
        (
            "unknown KEK",
            query().wrapped_by(named("eu"), kek("kek-2")),
            has("eu", "kek-2"),
        ),
        (
            "moment",
            query().activated_before(moment),
            Box::new(move |r| r.activated_at.is_some_and(|at| at < moment)),
        ),
        (
            "moment and state",
            query().activated_before(moment).state(KeyState::Active),
            Box::new(move |r| r.state == KeyState::Active && r.activated_at.is_some_and(|at| at < moment)),
        ),
        (
            "usage and state",
            query().usage(KeyUsage::Data).state(KeyState::Compromised),
            Box::new(|r| r.usage == KeyUsage::Data && r.state == KeyState::Compromised),
        ),
        (
            "KEK, usage and state",
            query()
                .wrapped_by(named("default"), kek("kek-1"))
                .usage(KeyUsage::Data)
                .state(KeyState::Active),
            Box::new({
                let has = has("default", "kek-1");
                move |r| has(r) && r.usage == KeyUsage::Data && r.state == KeyState::Active
            }),
        ),
        (
            "all at once",
            query()
                .scope(scope)
                .usage(KeyUsage::Data)
                .state(KeyState::Active)
                .state(KeyState::Suspended)
                .wrapped_by(named("default"), kek("kek-1"))
                .activated_before(moment),
            Box::new({
                let has = has("default", "kek-1");
                move |r| {
                    has(r)
                        && r.scope == scope
                        && matches!(r.state, KeyState::Active | KeyState::Suspended)
                        && r.activated_at.is_some_and(|at| at < moment)
                }
            }),
        ),
        (
            "pair of the context",
            query().context_pair("tenantId", "a"),
            pairs(&[("tenantId", "a")]),
        ),
        (
            "pairs of the context",
            query()
                .context_pair("tenantId", "b")
                .context_pair("purpose", "pii"),
            pairs(&[("tenantId", "b"), ("purpose", "pii")]),
        ),
        (
            "pair that others have the key or the value of",
            query().context_pair("purpose", "a"),
            Box::new(|_| false),
        ),
        (
            "pair whose key differs in case",
            query().context_pair("tenantid", "a"),
            Box::new(|_| false),
        ),
        (
            "pair with a number for a text",
            query().context_pair("tenantId", "1"),
            pairs(&[("tenantId", "1")]),
        ),
        (
            "pair of odd text",
            query().context_pair("tenantId", odd),
            Box::new(move |r| r.context["tenantId"] == odd),
        ),
        (
            "pair, state and usage",
            query()
                .context_pair("tenantId", "a")
                .state(KeyState::Active)
                .usage(KeyUsage::Data),
            Box::new({
                let pairs = pairs(&[("tenantId", "a")]);
                move |r| pairs(r) && r.state == KeyState::Active && r.usage == KeyUsage::Data
            }),
        ),
        (
            "pair, KEK and moment",
            query()
                .context_pair("tenantId", "a")
                .wrapped_by(named("default"), kek("kek-1"))
                .activated_before(moment),
            Box::new({
                let (pairs, has) = (pairs(&[("tenantId", "a")]), has("default", "kek-1"));
                move |r| pairs(r) && has(r) && r.activated_at.is_some_and(|at| at < moment)
            }),
        ),
        (
            "pair and scope",
            query().context_pair("tenantId", "a").scope(scope),
            Box::new(move |r| r.scope == scope),
        ),
        (
            "pair of another scope",
            query().context_pair("tenantId", "b").scope(scope),
            Box::new(|_| false),
        ),
        (
            "the wrong usage for the scope",
            query().scope(scope).usage(KeyUsage::Index),
            Box::new(|_| false),
        ),
    ];
    for (what, query, filter) in cases {
        let expected: Vec<_> = all.iter().filter(|record| filter(record)).cloned().collect();
        for limit in [1000, 2] {
            let mut query = query.clone();
            query.limit = limit;
            assert_eq!(list(&store, &query).await, expected, "{what}, {limit} a page");
        }
    }
}

pub(super) async fn a_summary_counts_every_version(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    assert_eq!(store.summary().await.unwrap().counts, []);
    let all = mixture(&store).await;
    let summary = fixture.open().await.summary().await.unwrap();
    let mut expected = Vec::new();
    for usage in KeyUsage::ALL {
        let mut states = KeyState::ALL.to_vec();
        states.sort();
        for state in states {
            let found = || {
                let records = all.iter();
                records.filter(move |record| record.usage == usage && record.state == state)
            };
            let versions = u64::try_from(found().count()).unwrap();
            assert_eq!(summary.versions(usage, state), versions, "{usage:?}, {state:?}");
            let first = found().filter_map(|record| record.activated_at).min();
            if versions > 0 {
                expected.push(KeyCount::new(usage, state, versions, first));
            }
        }
    }
    expected.sort_by_key(|count| (count.usage, count.state));
    assert_eq!(summary.counts, expected);
    let oldest = all
        .iter()
        .filter(|record| record.usage == KeyUsage::Data && record.state == KeyState::Active)
        .filter_map(|record| record.activated_at)
        .min();
    assert!(oldest.is_some());
    assert_eq!(summary.oldest_active(KeyUsage::Data), oldest);
    assert_eq!(summary.oldest_active(KeyUsage::Pepper), None);
}

pub(super) async fn keks_are_counted_with_what_they_alone_wrap(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    assert_eq!(store.keks().await.unwrap(), []);
    mixture(&store).await;
    // Capital letters come first in every locale of the database.
    let record = Family::new("Z").add(&store, KeyState::Active).await;
    let other = WrapChange::new(&record, vec![wrap("KEK", 1)]);
    store
        .replace_wraps(&[other])
        .await
        .unwrap()
        .remove(0)
        .result
        .unwrap();
    // In each of three families one version is destroyed, two have one wrap, and two have two.
    let uses = [
        ("default", "KEK", 1, 1),
        ("default", "kek-1", 3 * 3, 3 * 2),
        ("default", "kek-2", 3 * 2, 0),
        ("eu", "kek-1", 3, 0),
    ];
    let uses = uses.map(|(kms, kek, versions, sole)| {
        let (kms, kek) = (KmsName::new(kms).unwrap(), KekId::new(kek).unwrap());
        KekUse::new(kms, kek, versions, sole)
    });
    assert_eq!(fixture.open().await.keks().await.unwrap(), uses);
}
