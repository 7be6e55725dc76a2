//! Races, which one racer wins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use encx_core::key::{KeyState, KeyVersion};
use encx_core::store::{StateChange, StoreError, WrapChange};

use super::StoreFixture;
use super::support::{Family, RACERS, active, change, only_winner, race, wrap};

const ROUNDS: usize = 4;

pub(super) async fn one_of_sixteen_inserts_wins(fixture: Arc<dyn StoreFixture>) {
    let handles = [
        fixture.open().await,
        fixture.open().await,
        fixture.open().await,
        fixture.open().await,
    ];
    let mut family = Family::new("inserts");
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        // The empty scope first, where there is no row to lock.
        let state = if round == 0 {
            KeyState::Active
        } else {
            KeyState::PreActive
        };
        let results = race(|number| {
            let store = handles[number % handles.len()].clone();
            let new = family.next(state);
            async move { store.insert(&new).await }
        })
        .await;
        let winner = only_winner(results);
        family.passed(winner.id, winner.version);
        expected.push(winner);
        assert_eq!(
            family.load(&handles[0]).await,
            expected,
            "only the winners are there"
        );
    }
}

pub(super) async fn one_of_sixteen_promotions_wins(fixture: Arc<dyn StoreFixture>) {
    let handles = [fixture.open().await, fixture.open().await, fixture.open().await];
    let mut family = Family::new("promotions");
    family.add(&handles[0], KeyState::Active).await;
    for _ in 0..ROUNDS {
        let next = family.add(&handles[0], KeyState::PreActive).await;
        let results = race(|number| {
            let store = handles[number % handles.len()].clone();
            let change = StateChange::new(&next, KeyState::Active);
            async move { store.apply(&change).await }
        })
        .await;
        let winner = only_winner(results);
        assert_eq!(winner.revision, next.revision.next());
        let records = family.load(&handles[0]).await;
        assert_eq!(active(&records), 1);
        assert_eq!(records.last(), Some(&winner));
    }
}

pub(super) async fn one_of_sixteen_state_changes_wins(fixture: Arc<dyn StoreFixture>) {
    let handles = [fixture.open().await, fixture.open().await, fixture.open().await];
    for round in 0..ROUNDS {
        let mut family = Family::new(&format!("changes-{round}"));
        let record = family.add(&handles[0], KeyState::Active).await;
        let results = race(|number| {
            let store = handles[number % handles.len()].clone();
            let to = [KeyState::Suspended, KeyState::Compromised][number % 2];
            let change = StateChange::new(&record, to);
            async move { store.apply(&change).await }
        })
        .await;
        let winner = only_winner(results);
        assert_eq!(family.load(&handles[0]).await, [winner]);
    }
}

pub(super) async fn one_of_sixteen_wrap_changes_wins(fixture: Arc<dyn StoreFixture>) {
    let handles = [fixture.open().await, fixture.open().await, fixture.open().await];
    let mut family = Family::new("wraps");
    let mut record = family.add(&handles[0], KeyState::Active).await;
    for _ in 0..ROUNDS {
        let results = race(|number| {
            let store = handles[number % handles.len()].clone();
            let seed = u8::try_from(number).unwrap();
            let change = WrapChange::new(&record, vec![wrap("kek-1", seed), wrap("kek-2", seed)]);
            async move { store.replace_wraps(&[change]).await.unwrap().remove(0).result }
        })
        .await;
        record = only_winner(results);
        assert_eq!(family.load(&handles[0]).await, std::slice::from_ref(&record));
    }
}

/// Sixteen versions are promoted at once while others read: the greatest winner is active, and no reader ever sees two
/// active versions or none.
pub(super) async fn readers_always_see_one_active_version(fixture: Arc<dyn StoreFixture>) {
    let handles = [fixture.open().await, fixture.open().await, fixture.open().await];
    let mut family = Family::new("readers");
    family.add(&handles[0], KeyState::Active).await;
    let mut waiting = Vec::new();
    for _ in 0..RACERS {
        waiting.push(family.add(&handles[0], KeyState::PreActive).await);
    }
    let done = Arc::new(AtomicBool::new(false));
    let readers = handles.clone().map(|store| {
        let (family, done) = (family.clone(), done.clone());
        tokio::spawn(async move {
            let mut newest = KeyVersion::FIRST;
            while !done.load(Ordering::SeqCst) {
                let records = family.load(&store).await;
                assert_eq!(active(&records), 1, "{records:#?}");
                let active = records
                    .iter()
                    .find(|record| record.state == KeyState::Active)
                    .unwrap();
                assert!(active.version >= newest, "encryption never goes back");
                newest = active.version;
                tokio::task::yield_now().await;
            }
        })
    });
    let results = race(|number| {
        let store = handles[number % handles.len()].clone();
        let key = waiting[number].clone();
        async move { change(&store, &key, KeyState::Active).await }
    })
    .await;
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    let mut winners = Vec::new();
    for result in results {
        match result {
            Ok(record) => winners.push(record.id),
            Err(StoreError::Superseded { .. }) => {}
            Err(error) => assert!(error.is_lost_race(), "{error}"),
        }
    }
    let records = family.load(&handles[0]).await;
    let active: Vec<_> = records
        .iter()
        .filter(|record| record.state == KeyState::Active)
        .map(|record| record.id)
        .collect();
    assert_eq!(
        active,
        winners.iter().max().copied().into_iter().collect::<Vec<_>>()
    );
}
