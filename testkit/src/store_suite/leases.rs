//! Leases: held by one process, and ended by time.

use std::sync::Arc;
use std::time::Duration;

use encx_core::store::{Lease, ProcessId, StoreError};

use super::support::{LONG, SHORT, handles, leases, now, race, wait_until};
use super::{StoreFixture, StoreOffer};

pub(super) async fn a_lease_is_held_by_one(fixture: Arc<dyn StoreFixture>) {
    let Some([first, second]) = handles(&*fixture, StoreOffer::Leases).await else {
        return;
    };
    let (one, two) = (ProcessId::random(), ProcessId::random());
    let before = now(&first).await;
    let lease = leases(&first)
        .acquire_lease("a", one, LONG)
        .await
        .unwrap()
        .unwrap();
    assert!(lease.since >= before && lease.since <= now(&second).await);
    let lasts = lease.until.as_micros() - lease.since.as_micros();
    let off = (lasts - i64::try_from(LONG.as_micros()).unwrap()).abs();
    assert!(off < 1_000_000, "it lasts for its term: {lasts} µs");
    assert_eq!(lease.term, 1);
    assert_eq!(leases(&second).acquire_lease("a", two, LONG).await.unwrap(), None);
    assert!(
        leases(&second)
            .acquire_lease("A", two, LONG)
            .await
            .unwrap()
            .is_some(),
        "another name is another lease"
    );

    let extended = leases(&second)
        .acquire_lease("a", one, LONG)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(extended.term, lease.term, "the holder stays the same");
    assert!(extended.since >= lease.since && extended.until >= lease.until);
    assert_eq!(leases(&first).acquire_lease("a", two, LONG).await.unwrap(), None);

    // An extended lease outlasts its first term.
    let short = leases(&first)
        .acquire_lease("short", one, SHORT)
        .await
        .unwrap()
        .unwrap();
    leases(&first)
        .acquire_lease("short", one, LONG)
        .await
        .unwrap()
        .unwrap();
    wait_until(&first, short.until).await;
    assert_eq!(
        leases(&second).acquire_lease("short", two, LONG).await.unwrap(),
        None
    );
    // Any term is accepted.
    let endless = leases(&first).acquire_lease("endless", one, Duration::MAX).await;
    assert!(endless.unwrap().is_some());
    assert_eq!(
        leases(&second).acquire_lease("endless", two, LONG).await.unwrap(),
        None
    );
}

pub(super) async fn a_lease_ends_by_itself(fixture: Arc<dyn StoreFixture>) {
    let Some([first, second]) = handles(&*fixture, StoreOffer::Leases).await else {
        return;
    };
    let holders = [ProcessId::random(), ProcessId::random()];
    let mut last: Option<Lease> = None;
    for turn in 0..4 {
        let lease = loop {
            let taken = leases(&second).acquire_lease("a", holders[turn % 2], SHORT).await;
            if let Some(lease) = taken.unwrap() {
                break lease;
            }
            tokio::time::sleep(SHORT / 10).await;
        };
        if let Some(last) = last {
            assert!(lease.since >= last.until, "the last holder has it until its end");
            assert_eq!(lease.term, last.term + 1, "each other holder has a greater term");
        }
        last = Some(lease);
    }
    // The last holder may have it again, in the same term: no other process held it since.
    let last = last.unwrap();
    wait_until(&first, last.until).await;
    let again = leases(&first).acquire_lease("a", holders[1], LONG).await.unwrap();
    assert_eq!(again.unwrap().term, last.term);
}

pub(super) async fn a_lease_is_given_back_by_its_holder_alone(fixture: Arc<dyn StoreFixture>) {
    let Some([first, second]) = handles(&*fixture, StoreOffer::Leases).await else {
        return;
    };
    let (one, two) = (ProcessId::random(), ProcessId::random());
    leases(&first).release_lease("a", one).await.unwrap();
    let lease = leases(&first)
        .acquire_lease("a", one, LONG)
        .await
        .unwrap()
        .unwrap();
    leases(&second).release_lease("a", two).await.unwrap();
    assert_eq!(leases(&second).acquire_lease("a", two, LONG).await.unwrap(), None);
    leases(&first).release_lease("a", one).await.unwrap();
    let next = leases(&second)
        .acquire_lease("a", two, LONG)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next.term, lease.term + 1);
    // A late release takes nothing from the next holder.
    leases(&first).release_lease("a", one).await.unwrap();
    assert_eq!(leases(&first).acquire_lease("a", one, LONG).await.unwrap(), None);
}

pub(super) async fn one_of_sixteen_takes_a_lease(fixture: Arc<dyn StoreFixture>) {
    let Some(stores) = handles::<4>(&*fixture, StoreOffer::Leases).await else {
        return;
    };
    for round in 1..=4 {
        let results = race(|number| {
            let store = stores[number % stores.len()].clone();
            let holder = ProcessId::random();
            async move {
                let taken = leases(&store).acquire_lease("a", holder, LONG).await.unwrap();
                taken.map(|lease| (holder, lease))
            }
        })
        .await;
        let winners: Vec<_> = results.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "one holds it: {winners:?}");
        let (holder, lease) = winners[0];
        assert_eq!(lease.term, round);
        leases(&stores[0]).release_lease("a", holder).await.unwrap();
    }
}

pub(super) async fn a_lease_has_a_fit_name(fixture: Arc<dyn StoreFixture>) {
    let Some([store]) = handles(&*fixture, StoreOffer::Leases).await else {
        return;
    };
    let holder = ProcessId::random();
    for name in ["", "a\nb", "a\0", &"n".repeat(201), &"ü".repeat(101)] {
        let taken = leases(&store).acquire_lease(name, holder, LONG).await;
        assert!(matches!(taken, Err(StoreError::Invalid { .. })), "{name:?}");
        let released = leases(&store).release_lease(name, holder).await;
        assert!(matches!(released, Err(StoreError::Invalid { .. })), "{name:?}");
    }
    for name in ["n", "' \" \\ %", &"ü".repeat(100)] {
        let taken = leases(&store).acquire_lease(name, holder, LONG).await.unwrap();
        assert!(taken.is_some(), "{name:?}");
    }
}
