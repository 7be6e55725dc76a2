//! Wraps: their number, their length, and their replacement.

use std::sync::Arc;

use encx_core::key::{KeyState, KmsName, MAX_WRAPS, WrappedKey};
use encx_core::store::{StateChange, StoreError, StoredWrap, WrapChange};

use super::StoreFixture;
use super::support::{Family, change, current, new_id, wrap};

fn wraps(count: usize) -> Vec<StoredWrap> {
    (0..count).map(|n| wrap(&format!("kek-{n}"), 7)).collect()
}

pub(super) async fn wraps_have_bounds(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let mut family = Family::new("bounds");
    let mut empty = wrap("kek", 1);
    empty.wrapped.ciphertext.clear();
    let mut long = wrap("kek", 1);
    long.wrapped.ciphertext = vec![1; WrappedKey::MAX_LEN + 1];
    let mut long_material = wrap("kek", 1);
    long_material.wrapped.kek_material = Some("m".repeat(257));
    let mut odd_material = wrap("kek", 1);
    odd_material.wrapped.kek_material = Some("m\0".to_owned());
    let refused = [
        ("none", vec![]),
        ("nine", wraps(MAX_WRAPS + 1)),
        (
            "two of one KEK",
            vec![wrap("kek", 1), wrap("other", 2), wrap("kek", 3)],
        ),
        ("an empty one", vec![empty]),
        ("a long one", vec![long]),
        ("long material", vec![long_material]),
        ("a control character in the material", vec![odd_material]),
    ];
    for (what, wraps) in &refused {
        let mut new = family.next(KeyState::Active);
        new.wraps.clone_from(wraps);
        let result = store.insert(&new).await;
        assert!(
            matches!(result, Err(StoreError::Invalid { .. })),
            "{what}: {result:?}"
        );
    }
    assert!(family.load(&store).await.is_empty());
    let record = family.add(&store, KeyState::Active).await;
    for (what, wraps) in refused {
        let change = WrapChange::new(&record, wraps);
        let outcome = store.replace_wraps(&[change]).await.unwrap().remove(0);
        assert!(
            matches!(outcome.result, Err(StoreError::Invalid { .. })),
            "{what}: {outcome:?}"
        );
    }
    assert_eq!(family.load(&store).await, [record]);
}

pub(super) async fn wraps_are_replaced_as_a_set(fixture: Arc<dyn StoreFixture>) {
    let (store, other) = (fixture.open().await, fixture.open().await);
    let mut family = Family::new("sets");
    let sibling = family.add(&store, KeyState::PreActive).await;
    let mut record = family.add(&store, KeyState::PreActive).await;
    let mut elsewhere = wrap("kek-1", 9);
    elsewhere.kms = KmsName::new("eu").unwrap();
    let sets = [
        wraps(MAX_WRAPS),
        vec![wrap("kek-1", 8)],
        vec![wrap("kek-1", 8), elsewhere],
        wraps(3),
        wraps(1),
    ];
    for set in sets {
        let change = WrapChange::new(&record, set.clone());
        let outcome = store.replace_wraps(&[change]).await.unwrap().remove(0);
        let replaced = outcome.result.unwrap();
        assert_eq!(outcome.id, record.id);
        assert_eq!(replaced.wraps, set);
        assert_eq!(replaced.revision, record.revision.next());
        assert!(replaced.changed_at > record.changed_at);
        assert_eq!(replaced.state, record.state);
        assert_eq!(family.load(&other).await, [sibling.clone(), replaced.clone()]);
        record = replaced;
    }
    // A change of state does not touch them.
    let promoted = change(&store, &record, KeyState::Active).await.unwrap();
    assert_eq!(promoted.wraps, record.wraps);
}

pub(super) async fn each_wrap_change_has_its_own_outcome(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let mut records = Vec::new();
    for n in 0..4 {
        records.push(
            Family::new(&format!("t-{n}"))
                .add(&store, KeyState::PreActive)
                .await,
        );
    }
    let destroyed = change(&store, &records[2], KeyState::Destroyed).await.unwrap();
    let stale = records[1].clone();
    change(&store, &stale, KeyState::Suspended).await.unwrap();
    let mut unknown = records[0].clone();
    unknown.id = new_id(Some(records[3].id));
    let asked = [&records[0], &stale, &destroyed, &unknown, &records[3]];
    let changes: Vec<_> = asked
        .iter()
        .map(|record| WrapChange::new(record, vec![wrap("kek-2", 2)]))
        .collect();
    let outcomes = store.replace_wraps(&changes).await.unwrap();
    let ids: Vec<_> = outcomes.iter().map(|outcome| outcome.id).collect();
    let expected: Vec<_> = asked.iter().map(|record| record.id).collect();
    assert_eq!(ids, expected, "one outcome for each, in the same order");
    for place in [0, 4] {
        let replaced = outcomes[place].result.as_ref().unwrap();
        assert_eq!(replaced.wraps, [wrap("kek-2", 2)]);
        assert_eq!(current(&store, replaced.id).await, *replaced);
    }
    assert!(matches!(
        outcomes[1].result,
        Err(StoreError::StaleRevision { .. })
    ));
    assert!(matches!(outcomes[2].result, Err(StoreError::Invalid { .. })));
    assert!(matches!(outcomes[3].result, Err(StoreError::NotFound { .. })));
    assert_eq!(current(&store, stale.id).await.wraps, stale.wraps);
    assert_eq!(current(&store, destroyed.id).await, destroyed);
}

pub(super) async fn stale_revisions_are_refused(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let mut family = Family::new("stale");
    let first = family.add(&store, KeyState::Active).await;
    let second = change(&store, &first, KeyState::Suspended).await.unwrap();
    let third = change(&store, &second, KeyState::Active).await.unwrap();
    let mut future = third.clone();
    future.revision = third.revision.next();
    for wrong in [&first, &second, &future] {
        let is_stale = |result: &Result<_, StoreError>| {
            assert!(
                matches!(
                    result,
                    Err(StoreError::StaleRevision { id, expected, found })
                        if (*id, *expected, *found) == (first.id, wrong.revision, third.revision)
                ),
                "revision {} against {}: {result:?}",
                wrong.revision,
                third.revision
            );
        };
        for to in [KeyState::Suspended, KeyState::Compromised] {
            is_stale(&store.apply(&StateChange::new(wrong, to)).await);
        }
        let change = WrapChange::new(wrong, vec![wrap("kek-2", 2)]);
        is_stale(&store.replace_wraps(&[change]).await.unwrap().remove(0).result);
        assert_eq!(family.load(&store).await, std::slice::from_ref(&third));
    }
}
