//! A shredded scope: what remains of it, and that no key can be added to it.

use std::sync::Arc;

use encx_core::key::{KeyState, KeyUsage, KeyVersion};
use encx_core::store::{ChangeCursor, KeyQuery, KeyRecord, NewKey, StateChange, StoreError, WrapChange};

use super::StoreFixture;
use super::support::{Family, RACERS, Store, change, current, list, new_id, only_winner, poll, race, wrap};

use KeyState::{Active, Destroyed, PreActive, Suspended};

const ROUNDS: usize = 8;

/// Describes the tombstone of a family's scope.
fn tombstone(family: &Family) -> NewKey {
    NewKey::tombstone(new_id(None), family.usage, &family.context)
}

fn assert_conflict(result: &Result<KeyRecord, StoreError>, what: &str) {
    assert!(matches!(result, Err(StoreError::Conflict)), "{what}: {result:?}");
}

pub(super) async fn a_tombstone_comes_back_and_stands_alone(fixture: Arc<dyn StoreFixture>) {
    let (store, other) = (fixture.open().await, fixture.open().await);
    let (_, cursor) = poll(&store, ChangeCursor::now()).await;
    let mut family = Family::of(KeyUsage::Index, &[("tenantId", "gone")]);
    let new = tombstone(&family);
    let buried = store.insert(&new).await.unwrap();
    assert!(buried.is_tombstone());
    assert_eq!(
        (buried.id, buried.scope, buried.usage),
        (new.id, new.scope, new.usage)
    );
    assert_eq!((buried.state, buried.version), (Destroyed, KeyVersion::FIRST));
    assert_eq!((&*buried.wraps, buried.activated_at), (&[][..], None));
    assert_eq!(buried.destroyed_at, Some(buried.created_at));
    assert_eq!(buried.verified_context().unwrap(), family.context);
    for handle in [&store, &other] {
        assert_eq!(family.load(handle).await, std::slice::from_ref(&buried));
        assert_eq!(current(handle, buried.id).await, buried);
        let destroyed = KeyQuery::new(10).scope(family.scope()).state(Destroyed);
        assert_eq!(list(handle, &destroyed).await, std::slice::from_ref(&buried));
    }
    let (changes, _) = poll(&store, cursor).await;
    assert!(
        changes
            .iter()
            .any(|seen| seen.id == buried.id && seen.state == Destroyed)
    );
    // It accepts no wraps, no other state, and no second tombstone.
    let refill = WrapChange::new(&buried, vec![wrap("kek-1", 1)]);
    let refused = store.replace_wraps(&[refill]).await.unwrap().remove(0).result;
    assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
    for to in KeyState::ALL {
        let refused = change(&store, &buried, to).await;
        assert!(
            matches!(refused, Err(StoreError::IllegalTransition { .. })),
            "{to}: {refused:?}"
        );
    }
    assert_conflict(&store.insert(&tombstone(&family)).await, "a second tombstone");
    // A first use that expects an empty scope loses.
    for state in [PreActive, Active] {
        assert_conflict(&store.insert(&family.next(state)).await, state.name());
    }
    assert_eq!(family.load(&other).await, std::slice::from_ref(&buried));
    // A version with a key cannot be added as destroyed.
    let family_of_others = Family::new("others");
    let refused = store.insert(&family_of_others.next(Destroyed)).await;
    assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
    // Its scope can be revived like others.
    family.passed(buried.id, buried.version);
    assert_conflict(&store.insert(&family.next(Active)).await, "not asked for");
    let revived = store.insert(&family.next(Active).reviving()).await.unwrap();
    assert_eq!((revived.state, revived.version.get()), (Active, 2));
}

pub(super) async fn nothing_is_added_where_all_is_destroyed(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let mut family = Family::new("shredded");
    let active = family.add(&store, Active).await;
    let waiting = family.add(&store, PreActive).await;
    // While one version is left, the next can be added.
    change(&store, &waiting, Destroyed).await.unwrap();
    let last = family.add(&store, PreActive).await;
    change(&store, &last, Destroyed).await.unwrap();
    let suspended = change(&store, &active, Suspended).await.unwrap();
    change(&store, &suspended, Destroyed).await.unwrap();
    let before = family.load(&store).await;
    for state in [PreActive, Active] {
        assert_conflict(&store.insert(&family.next(state)).await, state.name());
    }
    assert_conflict(
        &store.insert(&family.next(PreActive).reviving()).await,
        "none would be active",
    );
    assert_conflict(&store.insert(&tombstone(&family)).await, "a tombstone");
    assert_eq!(family.load(&store).await, before);
    let revived = store.insert(&family.next(Active).reviving()).await.unwrap();
    family.passed(revived.id, revived.version);
    // From then on versions are added as usual.
    family.add(&store, PreActive).await;
}

/// Half of the racers use a scope for the first time, half shred it.
pub(super) async fn a_first_use_and_a_tombstone_do_not_both_win(fixture: Arc<dyn StoreFixture>) {
    let handles = [fixture.open().await, fixture.open().await, fixture.open().await];
    for round in 0..ROUNDS {
        let family = Family::new(&format!("first-use-{round}"));
        let results = race(|number| {
            let store = handles[number % handles.len()].clone();
            let new = match number % 2 {
                0 => family.next(Active),
                _ => tombstone(&family),
            };
            async move { store.insert(&new).await }
        })
        .await;
        let winner = only_winner(results);
        assert_eq!(family.load(&handles[0]).await, std::slice::from_ref(&winner));
        assert_eq!(winner.is_tombstone(), winner.wraps.is_empty());
    }
}

/// Some rotate, some add an active version, and one destroys every version until none is left.
pub(super) async fn no_race_leaves_a_key_in_a_shredded_scope(fixture: Arc<dyn StoreFixture>) {
    let handles = [fixture.open().await, fixture.open().await, fixture.open().await];
    for round in 0..ROUNDS {
        let mut family = Family::new(&format!("shredding-{round}"));
        family.add(&handles[0], Active).await;
        let results = race(|number| {
            let (store, family) = (handles[number % handles.len()].clone(), family.clone());
            async move {
                match number {
                    0 => shred(&store, &family).await,
                    _ => {
                        // The version that it was about to add when the shredding began.
                        let new = family.next([PreActive, Active][number % 2]);
                        for _ in 0..number * 10 {
                            tokio::task::yield_now().await;
                        }
                        if let Err(error) = store.insert(&new).await {
                            assert!(error.is_lost_race(), "{error}");
                        }
                    }
                }
            }
        })
        .await;
        assert_eq!(results.len(), RACERS);
        let records = family.load(&handles[0]).await;
        let left = records.iter().filter(|record| record.state != Destroyed);
        assert_eq!(left.count(), 0, "{records:#?}");
    }
}

/// Destroys versions until none is left, as a key manager does.
async fn shred(store: &Store, family: &Family) {
    loop {
        let records = family.load(store).await;
        let left: Vec<_> = records
            .iter()
            .filter(|record| record.state != Destroyed)
            .collect();
        if left.is_empty() {
            return;
        }
        for record in left {
            let to = match record.state {
                Active => Suspended,
                _ => Destroyed,
            };
            match store.apply(&StateChange::new(record, to)).await {
                Err(error) if error.is_lost_race() => {}
                changed => drop(changed.unwrap()),
            }
        }
    }
}
