//! Cancelled calls.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use encx_core::key::KeyState;
use encx_core::store::{ChangeCursor, KeyQuery, KeyRecord, StateChange, WrapChange};

use super::StoreFixture;
use super::support::{Family, Store, active, change, wrap};

/// The number of waits at which calls are dropped, more than any call has.
const WAITS: usize = 24;

/// Polls a future until it has waited `waits` times, then drops it.
async fn cancel_after<T>(waits: usize, call: impl Future<Output = T>) -> Option<T> {
    let mut call = pin!(call);
    let mut left = waits;
    poll_fn(move |context| match call.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

/// Retries a change until it succeeds: a cancelled call may still be in flight in the database.
async fn insist(store: &Store, family: &Family, to: impl Fn(&KeyRecord) -> KeyState) -> KeyRecord {
    loop {
        let newest = family.load(store).await.pop().unwrap();
        match change(store, &newest, to(&newest)).await {
            Ok(record) => return record,
            Err(error) => assert!(error.is_lost_race(), "{error}"),
        }
    }
}

fn other_state(record: &KeyRecord) -> KeyState {
    match record.state {
        KeyState::Active => KeyState::Suspended,
        _ => KeyState::Active,
    }
}

pub(super) async fn a_cancelled_write_is_done_or_not_done(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    for waits in 0..WAITS {
        let mut family = Family::new(&format!("cancelled-{waits}"));
        let first = family.add(&store, KeyState::Active).await;
        let second = family.add(&store, KeyState::PreActive).await;

        let promotion = StateChange::new(&second, KeyState::Active);
        cancel_after(waits, store.apply(&promotion)).await;
        let records = family.load(&store).await;
        assert_eq!(active(&records), 1, "a promotion is whole: {records:#?}");
        insist(&store, &family, other_state).await;

        let newest = family.load(&store).await.pop().unwrap();
        let wraps = vec![wrap("kek-1", 2), wrap("kek-2", 2)];
        let rewrap = [WrapChange::new(&newest, wraps.clone())];
        cancel_after(waits, store.replace_wraps(&rewrap)).await;
        let after = family.load(&store).await.pop().unwrap();
        assert!(
            [&newest.wraps, &wraps].contains(&&after.wraps),
            "wraps are the old or the new ones: {:?}",
            after.wraps
        );
        insist(&store, &family, other_state).await;

        let third = family.next(KeyState::PreActive);
        cancel_after(waits, store.insert(&third)).await;
        // The next caller adds that version or finds it added.
        match store.insert(&third).await {
            Ok(record) => assert_eq!(record.id, third.id),
            Err(error) => assert!(error.is_lost_race(), "{error}"),
        }
        let records = family.load(&store).await;
        let ids: Vec<_> = records.iter().map(|record| record.id).collect();
        assert_eq!(ids, [first.id, second.id, third.id]);
        assert_eq!(records[2].wraps, third.wraps);
    }
}

pub(super) async fn a_cancelled_read_harms_no_other(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let mut family = Family::new("read");
    let record = family.add(&store, KeyState::Active).await;
    for waits in 0..WAITS {
        let (scopes, ids) = ([family.scope()], [record.id]);
        cancel_after(waits, store.load(&scopes)).await;
        cancel_after(waits, store.get(&ids)).await;
        cancel_after(waits, store.page(&KeyQuery::new(1))).await;
        cancel_after(waits, store.changed_since(&ChangeCursor::start())).await;
        assert_eq!(family.load(&store).await, std::slice::from_ref(&record));
    }
}
