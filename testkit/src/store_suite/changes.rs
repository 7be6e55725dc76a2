//! Polling for changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use encx_core::key::{DataKeyId, KeyState};
use encx_core::store::{ChangeCursor, KeyChange, KeyQuery, KeyRecord, Revision, WrapChange};
use tokio::task::JoinSet;

use super::StoreFixture;
use super::support::{Family, Store, change, list, poll, wrap};

fn change_of(record: &KeyRecord) -> KeyChange {
    KeyChange::new(record.id, record.scope, record.state, record.revision)
}

pub(super) async fn polling_begins_at_the_start_or_now(fixture: Arc<dyn StoreFixture>) {
    let (store, other) = (fixture.open().await, fixture.open().await);
    assert!(poll(&store, ChangeCursor::start()).await.0.is_empty());
    let mut family = Family::new("begins");
    let first = family.add(&store, KeyState::Active).await;
    let page = other.changed_since(&ChangeCursor::now()).await.unwrap();
    assert_eq!(
        (page.changes.len(), page.more),
        (0, false),
        "nothing was changed since now"
    );
    let cursor = page.next;
    let second = family.add(&store, KeyState::PreActive).await;
    let changed = change(&store, &first, KeyState::Suspended).await.unwrap();
    let rewrap = WrapChange::new(&second, vec![wrap("kek-2", 1)]);
    let rewrapped = store.replace_wraps(&[rewrap]).await.unwrap().remove(0);
    let expected = [change_of(&changed), change_of(&rewrapped.result.unwrap())];
    // Every handle understands every other's cursors: they are positions in the database.
    for handle in [&store, &other] {
        let (since, _) = poll(handle, cursor).await;
        let (all, _) = poll(handle, ChangeCursor::start()).await;
        for change in &expected {
            assert!(since.contains(change), "{change:?} was made after `now`");
            assert!(all.contains(change), "{change:?} was made after the start");
        }
    }
    // A poll continues where it ended, however soon the next change follows.
    let (_, mut next) = poll(&store, cursor).await;
    for _ in 0..20 {
        let added = family.add(&other, KeyState::PreActive).await;
        let (since, further) = poll(&store, next).await;
        assert!(
            since.contains(&change_of(&added)),
            "{added:?} was added after the poll"
        );
        next = further;
    }
}

pub(super) async fn more_changes_than_a_page_are_listed_all(fixture: Arc<dyn StoreFixture>) {
    const WRITERS: usize = 8;
    const EACH: usize = 140;
    let store = fixture.open().await;
    let (_, cursor) = poll(&store, ChangeCursor::now()).await;
    let mut tasks = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        tasks.spawn(async move {
            let mut family = Family::new(&format!("w-{writer}"));
            for _ in 0..EACH {
                family.add(&store, KeyState::PreActive).await;
            }
        });
    }
    tasks.join_all().await;
    for from in [ChangeCursor::start(), cursor] {
        let first = store.changed_since(&from).await.unwrap();
        assert!(first.changes.len() <= 1000, "a page has a bound");
        let (changes, _) = poll(&store, from).await;
        let ids: BTreeMap<_, _> = changes
            .iter()
            .map(|change| (change.id, change.revision))
            .collect();
        assert_eq!(ids.len(), WRITERS * EACH);
    }
}

pub(super) async fn a_promotion_lists_both_keys(fixture: Arc<dyn StoreFixture>) {
    let store = fixture.open().await;
    let mut family = Family::new("both");
    let first = family.add(&store, KeyState::Active).await;
    let second = family.add(&store, KeyState::PreActive).await;
    let (_, cursor) = poll(&store, ChangeCursor::start()).await;
    let promoted = change(&store, &second, KeyState::Active).await.unwrap();
    let (changes, _) = poll(&store, cursor).await;
    assert!(changes.contains(&change_of(&promoted)));
    let demoted = KeyChange::new(
        first.id,
        first.scope,
        KeyState::Deactivated,
        first.revision.next(),
    );
    assert!(
        changes.contains(&demoted),
        "the demoted key is listed too: {changes:?}"
    );
}

type Seen = BTreeMap<DataKeyId, Revision>;

/// Polls until the writers are done, and once more.
async fn follow(store: Store, mut cursor: ChangeCursor, done: Arc<AtomicBool>) -> Seen {
    let mut seen = Seen::new();
    loop {
        let last = done.load(Ordering::SeqCst);
        let (changes, next) = poll(&store, cursor).await;
        cursor = next;
        for change in changes {
            let newest = seen.entry(change.id).or_insert(change.revision);
            *newest = change.revision.max(*newest);
        }
        if last {
            return seen;
        }
        tokio::task::yield_now().await;
    }
}

async fn write(store: Store, number: usize) {
    let mut own = Family::new(&format!("own-{number}"));
    let mut record = own.add(&store, KeyState::Active).await;
    for round in 0..8 {
        record = change(&store, &record, KeyState::Suspended).await.unwrap();
        record = change(&store, &record, KeyState::Active).await.unwrap();
        let rewrap = WrapChange::new(&record, vec![wrap("kek-1", round)]);
        for outcome in store.replace_wraps(&[rewrap]).await.unwrap() {
            outcome.result.unwrap();
        }
        let next = own.add(&store, KeyState::PreActive).await;
        record = change(&store, &next, KeyState::Active).await.unwrap();
        // A store that never waits would finish before the first poll.
        tokio::task::yield_now().await;
        // All of them write one scope: most lose, and the winner's change must be seen.
        let mut shared = Family::new("shared");
        if let Some(last) = shared.load(&store).await.last() {
            shared.passed(last.id, last.version);
        }
        if let Err(error) = store.insert(&shared.next(KeyState::PreActive)).await {
            assert!(error.is_lost_race(), "{error}");
        }
    }
}

pub(super) async fn polling_misses_nothing_under_concurrent_writers(fixture: Arc<dyn StoreFixture>) {
    let mut handles = Vec::new();
    for _ in 0..4 {
        handles.push(fixture.open().await);
    }
    let done = Arc::new(AtomicBool::new(false));
    let (_, now) = poll(&handles[0], ChangeCursor::now()).await;
    let mut pollers = JoinSet::new();
    for (number, store) in handles.iter().enumerate() {
        let from = if number % 2 == 0 {
            ChangeCursor::start()
        } else {
            now
        };
        pollers.spawn(follow(store.clone(), from, done.clone()));
    }
    let mut writers = JoinSet::new();
    for number in 0..8 {
        writers.spawn(write(handles[number % handles.len()].clone(), number));
    }
    writers.join_all().await;
    done.store(true, Ordering::SeqCst);
    let written: Seen = list(&handles[0], &KeyQuery::new(1000))
        .await
        .iter()
        .map(|record| (record.id, record.revision))
        .collect();
    for seen in pollers.join_all().await {
        assert_eq!(seen, written, "every poller saw the last change of every key");
    }
}
