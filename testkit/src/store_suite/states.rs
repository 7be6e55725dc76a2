//! The life cycle of a key: which changes are made, which are refused, and what changes with them.

use std::sync::Arc;

use encx_core::key::KeyState;
use encx_core::store::{KeyRecord, StateChange, StoreError, WrapChange};

use super::StoreFixture;
use super::support::{Family, Store, active, change, current, wrap};

use KeyState::{Active, Compromised, Deactivated, Destroyed, PreActive, Suspended};

/// Adds a key to its own scope and brings it into a state.
async fn key_in(store: &Store, tenant: &str, state: KeyState, from: Option<KeyState>) -> KeyRecord {
    let mut family = Family::new(tenant);
    let reached_from = match state {
        Suspended => from.unwrap(),
        Compromised => Active,
        Destroyed => PreActive,
        other => other,
    };
    let mut record = match reached_from {
        PreActive => family.add(store, PreActive).await,
        Active => family.add(store, Active).await,
        _ => {
            let first = family.add(store, Active).await;
            let second = family.add(store, PreActive).await;
            change(store, &second, Active).await.unwrap();
            current(store, first.id).await
        }
    };
    if matches!(state, Suspended | Compromised | Destroyed) {
        record = change(store, &record, state).await.unwrap();
    }
    assert_eq!((record.state, record.suspended_from), (state, from));
    record
}

pub(super) async fn every_legal_change_is_made_and_every_other_refused(fixture: Arc<dyn StoreFixture>) {
    // Written out, so that the code under test is not its own oracle.
    let table: [(KeyState, Option<KeyState>, &[KeyState]); 8] = [
        (PreActive, None, &[Active, Suspended, Destroyed]),
        (Active, None, &[Suspended, Compromised]),
        (Deactivated, None, &[Suspended, Compromised, Destroyed]),
        (Suspended, Some(PreActive), &[PreActive, Compromised, Destroyed]),
        (Suspended, Some(Active), &[Active, Compromised, Destroyed]),
        (
            Suspended,
            Some(Deactivated),
            &[Deactivated, Compromised, Destroyed],
        ),
        (Compromised, None, &[Destroyed]),
        (Destroyed, None, &[]),
    ];
    let store = fixture.open().await;
    for (from, suspended_from, legal) in table {
        let suffix = suspended_from.map_or("", KeyState::name);
        // Refused changes leave the key unchanged, so one key serves them all.
        let unmoved = key_in(&store, &format!("{from}-{suffix}"), from, suspended_from).await;
        for to in KeyState::ALL {
            assert_eq!(from.may_become(to, suspended_from), legal.contains(&to));
            if legal.contains(&to) {
                let tenant = format!("{from}-{suffix}-{to}");
                let key = key_in(&store, &tenant, from, suspended_from).await;
                let changed = change(&store, &key, to).await.unwrap();
                assert_eq!(changed.state, to, "{from} to {to}");
                assert_eq!(changed.revision, key.revision.next());
                assert_eq!(changed.suspended_from, (to == Suspended).then_some(from));
                assert_eq!(current(&store, key.id).await, changed, "{from} to {to}");
            } else {
                let result = change(&store, &unmoved, to).await;
                assert!(
                    matches!(
                        result,
                        Err(StoreError::IllegalTransition { id, from: said, to: asked })
                            if (id, said, asked) == (unmoved.id, from, to)
                    ),
                    "{from} to {to} gave {result:?}"
                );
                assert_eq!(current(&store, unmoved.id).await, unmoved, "{from} to {to}");
            }
        }
    }
}

pub(super) async fn promotion_demotes_in_the_same_step(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let mut family = Family::new("promotion");
    let first = family.add(&store, Active).await;
    let second = family.add(&store, PreActive).await;
    let untouched = family.add(&store, PreActive).await;
    let promoted = change(&store, &second, Active).await.unwrap();
    assert_eq!(promoted.state, Active);
    assert_eq!(promoted.activated_at, Some(promoted.changed_at));
    let records = family.load(&store).await;
    let demoted = &records[0];
    assert_eq!(demoted.state, Deactivated);
    assert_eq!(demoted.revision, first.revision.next(), "the demotion counts too");
    assert_eq!(demoted.deactivated_at, Some(demoted.changed_at));
    assert_eq!(demoted.wraps, first.wraps, "a demoted key keeps its wraps");
    assert_eq!(records[1..], [promoted, untouched], "no other version changes");
    let stale = change(&store, &first, Suspended).await.unwrap_err();
    assert!(
        stale.is_lost_race(),
        "a revision from before the demotion is stale"
    );
}

pub(super) async fn an_older_version_is_never_promoted_over_a_newer_one(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let mut family = Family::new("superseded");
    let older = family.add(&store, PreActive).await;
    let newer = family.add(&store, PreActive).await;
    let newer = change(&store, &newer, Active).await.unwrap();
    let superseded = |result: Result<KeyRecord, StoreError>, after: &str| {
        assert!(
            matches!(result, Err(StoreError::Superseded { id }) if id == older.id),
            "after the newer one was {after}: {result:?}"
        );
    };
    superseded(change(&store, &older, Active).await, "active");
    let newer = change(&store, &newer, Suspended).await.unwrap();
    superseded(change(&store, &older, Active).await, "suspended");
    let newer = change(&store, &newer, Compromised).await.unwrap();
    superseded(change(&store, &older, Active).await, "compromised");
    change(&store, &newer, Destroyed).await.unwrap();
    superseded(change(&store, &older, Active).await, "destroyed");
    assert_eq!(current(&store, older.id).await, older);
    family.add(&store, Active).await;
}

pub(super) async fn a_resumed_key_goes_back_to_where_it_was(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    for from in [PreActive, Active, Deactivated] {
        let before = key_in(&store, &format!("resume-{from}"), from, None).await;
        let suspended = change(&store, &before, Suspended).await.unwrap();
        assert_eq!(suspended.suspended_from, Some(from));
        for elsewhere in [PreActive, Active, Deactivated] {
            if elsewhere != from {
                let result = change(&store, &suspended, elsewhere).await;
                assert!(
                    matches!(result, Err(StoreError::IllegalTransition { .. })),
                    "suspended from {from}, resumed to {elsewhere}: {result:?}"
                );
            }
        }
        let mut resumed = change(&store, &suspended, from).await.unwrap();
        assert_eq!(resumed.suspended_from, None);
        assert_eq!(current(&store, resumed.id).await, resumed);
        resumed.revision = before.revision;
        resumed.changed_at = before.changed_at;
        assert_eq!(resumed, before, "nothing else changed");
    }
}

pub(super) async fn a_key_suspended_while_active_comes_back_deactivated_after_a_promotion(
    fixture: Arc<dyn StoreFixture>,
) {
    let store = fixture.open().await;
    for (tenant, by_insert) in [("by-insert", true), ("by-promotion", false)] {
        let mut family = Family::new(tenant);
        let first = family.add(&store, Active).await;
        let suspended = change(&store, &first, Suspended).await.unwrap();
        let second = if by_insert {
            family.add(&store, Active).await
        } else {
            let second = family.add(&store, PreActive).await;
            change(&store, &second, Active).await.unwrap()
        };
        let stepped_back = current(&store, first.id).await;
        assert_eq!(stepped_back.state, Suspended);
        assert_eq!(stepped_back.suspended_from, Some(Deactivated));
        assert_eq!(stepped_back.deactivated_at, Some(second.changed_at));
        let stale = change(&store, &suspended, Active).await.unwrap_err();
        assert!(
            stale.is_lost_race(),
            "the earlier revision is stale after the promotion: {stale}"
        );
        let result = change(&store, &stepped_back, Active).await;
        assert!(
            matches!(result, Err(StoreError::IllegalTransition { .. })),
            "{result:?}"
        );
        change(&store, &stepped_back, Deactivated).await.unwrap();
        let records = family.load(&store).await;
        assert_eq!(active(&records), 1);
        assert_eq!(records[1], second);
    }
}

pub(super) async fn destroyed_keys_have_no_wraps_and_take_none(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    for (from, suspended_from) in [
        (PreActive, None),
        (Deactivated, None),
        (Suspended, Some(Active)),
        (Compromised, None),
    ] {
        let key = key_in(&store, &format!("destroy-{from}"), from, suspended_from).await;
        assert_eq!(key.wraps.len(), 1);
        let destroyed = change(&store, &key, Destroyed).await.unwrap();
        assert_eq!(destroyed.wraps, [], "destroyed from {from}");
        assert_eq!(destroyed.destroyed_at, Some(destroyed.changed_at));
        assert_eq!(destroyed.key_check, key.key_check);
        assert_eq!(current(&store, key.id).await, destroyed);
        let refill = WrapChange::new(&destroyed, key.wraps.clone());
        let outcome = store.replace_wraps(&[refill]).await.unwrap().remove(0);
        assert!(
            matches!(outcome.result, Err(StoreError::Invalid { .. })),
            "{outcome:?}"
        );
        let late = WrapChange::new(&key, vec![wrap("kek-2", 2)]);
        let outcome = store.replace_wraps(&[late]).await.unwrap().remove(0);
        assert!(
            matches!(&outcome.result, Err(error) if error.is_lost_race()),
            "{outcome:?}"
        );
        for to in KeyState::ALL {
            let result = change(&store, &destroyed, to).await;
            assert!(
                matches!(result, Err(StoreError::IllegalTransition { .. })),
                "{to}"
            );
        }
        assert_eq!(current(&store, key.id).await, destroyed);
        let query = encx_core::store::KeyQuery::new(10)
            .scope(key.scope)
            .state(Destroyed)
            .wrapped_by(key.wraps[0].kms.clone(), key.wraps[0].wrapped.kek.clone());
        assert_eq!(
            store.page(&query).await.unwrap().records,
            [],
            "no wrap is left to find"
        );
    }
}

pub(super) async fn times_grow_and_stay(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let mut family = Family::new("times");
    let created = family.add(&store, PreActive).await;
    let activated = change(&store, &created, Active).await.unwrap();
    let suspended = change(&store, &activated, Suspended).await.unwrap();
    let resumed = change(&store, &suspended, Active).await.unwrap();
    let next = family.add(&store, PreActive).await;
    let next = change(&store, &next, Active).await.unwrap();
    let deactivated = current(&store, created.id).await;
    let compromised = change(&store, &deactivated, Compromised).await.unwrap();
    let destroyed = change(&store, &compromised, Destroyed).await.unwrap();
    let life = [
        &created,
        &activated,
        &suspended,
        &resumed,
        &deactivated,
        &compromised,
        &destroyed,
    ];
    for pair in life.windows(2) {
        assert!(pair[0].changed_at < pair[1].changed_at, "{pair:#?}");
        assert!(pair[0].revision < pair[1].revision);
        assert_eq!(pair[0].created_at, pair[1].created_at);
    }
    assert_eq!(created.activated_at, None);
    for later in &life[1..] {
        assert_eq!(
            later.activated_at,
            Some(activated.changed_at),
            "when it first became active"
        );
    }
    for earlier in &life[..4] {
        assert_eq!(earlier.deactivated_at, None);
    }
    assert_eq!(deactivated.changed_at, next.changed_at, "one step, one time");
    for later in &life[4..] {
        assert_eq!(later.deactivated_at, Some(next.changed_at));
    }
}

pub(super) async fn a_reason_has_bounds(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let mut family = Family::new("reasons");
    let record = family.add(&store, Active).await;
    for reason in ["x".repeat(1025), "nul \0".to_owned()] {
        let refused = StateChange::new(&record, Suspended).because(&reason);
        let result = store.apply(&refused).await;
        assert!(matches!(result, Err(StoreError::Invalid { .. })), "{result:?}");
        let refused = WrapChange::new(&record, vec![wrap("kek-2", 2)]).because(&reason);
        let result = store.replace_wraps(&[refused]).await.unwrap().remove(0).result;
        assert!(matches!(result, Err(StoreError::Invalid { .. })), "{result:?}");
        assert_eq!(current(&store, record.id).await, record);
        let refused = family.next(PreActive).because(&reason);
        let result = store.insert(&refused).await;
        assert!(matches!(result, Err(StoreError::Invalid { .. })), "{result:?}");
        assert_eq!(family.load(&store).await, std::slice::from_ref(&record));
    }
    let longest = "\u{1f511}".repeat(256);
    let new = family.next(PreActive).because(&longest);
    store.insert(&new).await.unwrap();
    let rewrap = WrapChange::new(&record, vec![wrap("kek-2", 2)]).because(&longest);
    let rewrapped = store.replace_wraps(&[rewrap]).await.unwrap().remove(0);
    let change = StateChange::new(&rewrapped.result.unwrap(), Suspended).because(longest);
    store.apply(&change).await.unwrap();
}

pub(super) async fn every_row_of_the_audit_log_has_the_reason(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let mut family = Family::new("audited");
    let mut expected = Vec::new();
    let mut log = |record: &KeyRecord, from: Option<KeyState>, to: KeyState, reason: &str| {
        expected.push((record.id, from, to, Some(reason.to_owned())));
    };
    let first = store.insert(&family.next(Active).because("born")).await.unwrap();
    family.passed(first.id, first.version);
    log(&first, None, Active, "born");
    let second = store
        .insert(&family.next(PreActive).because("published"))
        .await
        .unwrap();
    family.passed(second.id, second.version);
    log(&second, None, PreActive, "published");
    // A rotation changes two keys, and records its reason for both.
    let promotion = StateChange::new(&second, Active).because("rotated");
    let second = store.apply(&promotion).await.unwrap();
    log(&first, Some(Active), Deactivated, "rotated");
    log(&second, Some(PreActive), Active, "rotated");
    let suspension = StateChange::new(&second, Suspended).because("suspended");
    let second = store.apply(&suspension).await.unwrap();
    log(&second, Some(Active), Suspended, "suspended");
    // A key that was suspended while active changes its return state, and stays suspended.
    let third = store
        .insert(&family.next(Active).because("replaced"))
        .await
        .unwrap();
    log(&second, Some(Suspended), Suspended, "replaced");
    log(&third, None, Active, "replaced");
    let rewrap = WrapChange::new(&third, vec![wrap("kek-2", 2)]).because("moved");
    store.replace_wraps(&[rewrap]).await.unwrap();
    log(&third, Some(Active), Active, "moved");
    let first = current(&store, first.id).await;
    let destruction = StateChange::new(&first, Destroyed).because("unused");
    store.apply(&destruction).await.unwrap();
    log(&first, Some(Deactivated), Destroyed, "unused");
    // A refused change leaves no row.
    store.apply(&destruction).await.unwrap_err();

    let Some(found) = fixture.audit_log().await else {
        return;
    };
    let mut found: Vec<_> = found
        .into_iter()
        .map(|change| (change.key, change.from, change.to, change.reason))
        .collect();
    // The rows of one change may come in either order.
    let order = |row: &(_, _, _, Option<String>)| row.3.clone();
    let position = |reason: &Option<String>| expected.iter().position(|row| row.3 == *reason);
    assert!(
        found.is_sorted_by_key(|row| position(&row.3)),
        "in the order of the changes: {found:#?}"
    );
    found.sort_by_key(|row| (order(row), row.0));
    expected.sort_by_key(|row| (order(row), row.0));
    assert_eq!(found, expected);
}
