//! Ids, versions and scopes: what may be added, and what a change must name.

use std::sync::Arc;

use encx_core::key::{DataKeyId, KeyState, KeyVersion};
use encx_core::store::{Revision, StateChange, StoreError, WrapChange};

use super::StoreFixture;
use super::support::{Family, new_id, wrap};

fn version(number: u32) -> KeyVersion {
    KeyVersion::new(number).unwrap()
}

pub(super) async fn versions_follow_without_gaps(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    // Another scope's versions do not matter.
    let mut other = Family::new("other");
    for _ in 0..3 {
        other.add(&store, KeyState::PreActive).await;
    }
    let mut family = Family::new("versions");
    for number in [2, 3, 4] {
        let new = family.next(KeyState::Active).with_version(version(number));
        let error = store.insert(&new).await.unwrap_err();
        assert!(
            error.is_lost_race(),
            "version {number} is not the first of an empty scope: {error}"
        );
    }
    family.add(&store, KeyState::Active).await;
    family.add(&store, KeyState::PreActive).await;
    for number in [1, 2, 4, 5] {
        let new = family.next(KeyState::PreActive).with_version(version(number));
        let error = store.insert(&new).await.unwrap_err();
        assert!(
            error.is_lost_race(),
            "version {number} does not follow version 2: {error}"
        );
    }
    family.add(&store, KeyState::PreActive).await;
    let versions: Vec<_> = family
        .load(&store)
        .await
        .iter()
        .map(|record| record.version.get())
        .collect();
    assert_eq!(versions, [1, 2, 3]);
}

pub(super) async fn ids_only_grow(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let early = new_id(None);
    let mut family = Family::new("ids");
    family.passed(early, KeyVersion::FIRST);
    // Two keys, both later than `early`.
    let mut first = family.next(KeyState::Active).with_version(KeyVersion::FIRST);
    store.insert(&first).await.unwrap();
    family.passed(first.id, KeyVersion::FIRST);
    let second = family.add(&store, KeyState::PreActive).await;

    let just_below = |id: DataKeyId| {
        let below = u128::from_be_bytes(id.to_bytes()) - 1;
        DataKeyId::from_bytes(below.to_be_bytes())
    };
    let mut refused = vec![early, first.id, second.id];
    refused.extend(just_below(second.id));
    for id in refused {
        first = family.next(KeyState::PreActive);
        first.id = id;
        let error = store.insert(&first).await.unwrap_err();
        assert!(
            error.is_lost_race(),
            "{id} is not greater than {}: {error}",
            second.id
        );
    }
    assert_eq!(family.load(&store).await.len(), 2);
    family.add(&store, KeyState::PreActive).await;
}

pub(super) async fn an_id_belongs_to_one_scope(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let mut family = Family::new("mine");
    let record = family.add(&store, KeyState::Active).await;
    let theirs = Family::new("theirs");
    let mut new = theirs.next(KeyState::Active);
    new.id = record.id;
    let error = store.insert(&new).await.unwrap_err();
    assert!(error.is_lost_race(), "the id is taken: {error}");
    assert!(theirs.load(&store).await.is_empty());
    assert_eq!(family.load(&store).await, [record]);
}

pub(super) async fn a_new_key_is_pre_active_or_active(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let family = Family::new("beginnings");
    for state in [
        KeyState::Compromised,
        KeyState::Deactivated,
        KeyState::Destroyed,
        KeyState::Suspended,
    ] {
        let result = store.insert(&family.next(state)).await;
        assert!(matches!(result, Err(StoreError::Invalid { .. })), "{state}");
    }
    let mut new = family.next(KeyState::Active);
    new.scope = Family::new("another").scope();
    let result = store.insert(&new).await;
    assert!(
        matches!(result, Err(StoreError::Invalid { .. })),
        "the scope of another context"
    );
    assert!(family.load(&store).await.is_empty());
}

pub(super) async fn a_second_active_key_is_refused(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let mut family = Family::new("second");
    let first = family.add(&store, KeyState::Active).await;
    let error = store.insert(&family.next(KeyState::Active)).await.unwrap_err();
    assert!(error.is_lost_race(), "{error}");
    assert_eq!(family.load(&store).await, [first]);
}

pub(super) async fn a_change_names_its_scope(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let mut family = Family::new("mine");
    let mut theirs = Family::new("theirs");
    let record = family.add(&store, KeyState::Active).await;
    let their_record = theirs.add(&store, KeyState::Active).await;
    let mut unknown = record.clone();
    unknown.id = new_id(Some(their_record.id));
    let mut moved = record.clone();
    moved.scope = theirs.scope();
    let mut nowhere = record.clone();
    nowhere.scope = Family::new("unknown").scope();
    for wrong in [unknown, moved, nowhere] {
        let result = store.apply(&StateChange::new(&wrong, KeyState::Suspended)).await;
        assert!(
            matches!(result, Err(StoreError::NotFound { id }) if id == wrong.id),
            "a change of {wrong:?} gave {result:?}"
        );
        let change = WrapChange::new(&wrong, vec![wrap("kek-2", 2)]);
        let outcomes = store.replace_wraps(&[change]).await.unwrap();
        assert_eq!((outcomes.len(), outcomes[0].id), (1, wrong.id));
        assert!(
            matches!(outcomes[0].result, Err(StoreError::NotFound { id }) if id == wrong.id),
            "new wraps for {wrong:?} gave {outcomes:?}"
        );
    }
    assert_eq!(family.load(&store).await, std::slice::from_ref(&record));
    assert_eq!(record.revision, Revision::FIRST);
    assert_eq!(theirs.load(&store).await, [their_record]);
}
