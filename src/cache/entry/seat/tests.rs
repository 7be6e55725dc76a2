use std::sync::atomic::AtomicU64;
use std::sync::{Barrier, Weak};
use std::thread;
use std::time::Duration;

use super::*;

fn published() -> Arc<Published> {
    Arc::new(Published::new())
}

/// Publishes a snapshot that its number identifies.
fn show(published: &Published, number: u64) -> Weak<Snapshot> {
    let snapshot = Snapshot {
        active: None,
        decrypting: None,
        derivation_keys: None,
        known_at: Duration::from_secs(number),
        epoch: None,
        known_until: Duration::MAX,
    };
    published.replace(Some(snapshot), true);
    published.current.load().as_ref().map(Arc::downgrade).unwrap()
}

fn number(guard: &SnapshotGuard) -> Option<u64> {
    guard.get().map(|snapshot| snapshot.known_at.as_secs())
}

fn is_seated(published: &Published) -> bool {
    matches!(published.read(), SnapshotGuard::Seated(_))
}

/// Reads until this thread, which has a number, has a seat.
fn sit(published: &Published) {
    assert!(soon(|| is_seated(published)), "no seat, however often it reads");
}

/// Waits for a condition: another thread of this process may briefly hold a seat to check it, and then drop its snapshot.
fn soon(mut is_true: impl FnMut() -> bool) -> bool {
    (0..1_000_000).any(|tries| {
        if tries > 100 {
            thread::yield_now();
        }
        is_true()
    })
}

fn is_gone(old: &Weak<Snapshot>) -> bool {
    soon(|| old.strong_count() == 0)
}

/// Runs work in a thread with a number, after waiting for other tests' threads to end if necessary.
fn numbered<T: Send>(work: impl Fn() -> T + Sync) -> T {
    loop {
        let numbered = || (threads::mine() < NUMBERED).then(&work);
        let done = thread::scope(|scope| scope.spawn(numbered).join());
        match done {
            Ok(Some(done)) => return done,
            Ok(None) => thread::sleep(Duration::from_millis(10)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

#[test]
fn who_reads_an_entry_again_and_again_takes_a_seat_and_who_alternates_takes_none() {
    numbered(|| {
        let [one, other, third] = [published(), published(), published()];
        for (number, published) in [&one, &other, &third].into_iter().enumerate() {
            show(published, number as u64);
        }
        // Whatever the last thread with this number missed.
        assert!(!is_seated(&third));
        for _ in 0..100 {
            assert!(!is_seated(&one) && !is_seated(&other));
        }
        let misses = (0..100).take_while(|_| !is_seated(&one)).count();
        assert!(misses > IN_A_ROW as usize && misses < 100, "{misses}");
        for _ in 0..100 {
            assert_eq!(number(&one.read()), Some(0));
            assert!(is_seated(&one));
            assert_eq!(number(&other.read()), Some(1));
            assert!(!is_seated(&other));
        }
    });
}

#[test]
fn only_the_snapshot_of_the_entry_itself_is_used() {
    numbered(|| {
        let [one, other] = [published(), published()];
        show(&one, 1);
        show(&other, 2);
        sit(&one);
        // As if it had been left in the seat for another `Published`.
        let mine = Mine::find().unwrap();
        mine.holds.store(other.address(), Ordering::Relaxed);
        let guard = other.read();
        assert_eq!(number(&guard), Some(2));
    });
}

#[test]
fn what_was_left_in_a_seat_is_found() {
    numbered(|| {
        let published = published();
        show(&published, 1);
        sit(&published);
        let left = published.current.load().as_ref().map(Arc::downgrade).unwrap();
        let before = left.strong_count();
        // As if an eviction had happened between the last check and the end of a call.
        Mine::find().unwrap().holds.store(NOWHERE, Ordering::Relaxed);
        tidy();
        assert!(soon(|| left.strong_count() == before - 1));
        sit(&published);
        tidy();
        assert!(is_seated(&published), "what is in use stays");
    });
}

#[test]
fn while_a_snapshot_is_replaced_nobody_takes_it() {
    numbered(|| {
        let published = published();
        show(&published, 1);
        published.replacing.store(true, Ordering::Relaxed);
        assert!((0..100).all(|_| !is_seated(&published)));
        published.replacing.store(false, Ordering::Relaxed);
        sit(&published);
    });
}

#[test]
fn what_is_replaced_leaves_memory_at_once_although_others_have_seats() {
    let published = published();
    let old = show(&published, 1);
    let (seated, checked) = (Barrier::new(3), Barrier::new(3));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                numbered(|| {
                    sit(&published);
                    seated.wait();
                    checked.wait();
                    assert_eq!(number(&published.read()), None);
                });
            });
        }
        seated.wait();
        published.replace(None, true);
        // No thread with a seat has run since.
        let gone = is_gone(&old);
        checked.wait();
        assert!(gone);
    });
}

#[test]
fn what_is_replaced_while_it_is_used_leaves_memory_afterwards() {
    numbered(|| {
        let published = published();
        let old = show(&published, 1);
        sit(&published);
        let guard = published.read();
        show(&published, 2);
        assert_eq!(number(&guard), Some(1));
        assert_eq!(number(&published.read()), Some(2));
        assert_eq!(old.strong_count(), 1);
        drop(guard);
        assert!(is_gone(&old));
        sit(&published);
        assert_eq!(number(&published.read()), Some(2));
    });
}

#[test]
fn whoever_is_held_up_in_a_seat_holds_nobody_up() {
    let published = published();
    let old = show(&published, 1);
    let (seated, checked) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            numbered(|| {
                sit(&published);
                let guard = published.read();
                seated.wait();
                checked.wait();
                number(&guard)
            })
        });
        seated.wait();
        show(&published, 2);
        let now = (number(&published.read()), old.strong_count());
        checked.wait();
        assert_eq!(now, (Some(2), 1));
        assert_eq!(other.join().unwrap(), Some(1));
        assert!(is_gone(&old));
    });
}

#[test]
fn an_entry_that_is_dropped_is_in_no_seat() {
    numbered(|| {
        let published = published();
        let old = show(&published, 1);
        sit(&published);
        drop(published);
        assert!(is_gone(&old));
    });
}

#[test]
fn nobody_sees_what_was_replaced_before_and_nothing_is_left() {
    const LAST: u64 = 5_000;
    const READERS: usize = 3;
    let published = published();
    show(&published, 0);
    let shown = AtomicU64::new(0);
    // The newest snapshot that any thread has seen.
    let seen = AtomicU64::new(0);
    let [started, ended, checked] = [(); 3].map(|()| Barrier::new(READERS + 1));
    let read = || {
        sit(&published);
        started.wait();
        let mut late = 0;
        while shown.load(Ordering::Acquire) < LAST {
            let least = shown.load(Ordering::Acquire).max(seen.load(Ordering::Acquire));
            let guard = published.read();
            let found = number(&guard).unwrap_or(0);
            seen.fetch_max(found, Ordering::AcqRel);
            late += u64::from(found < least);
        }
        ended.wait();
        checked.wait();
        late
    };
    thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(|| numbered(read))).collect();
        let mut all = Vec::new();
        started.wait();
        for next in 1..=LAST {
            all.push(show(&published, next));
            shown.store(next, Ordering::Release);
            if next % 8 == 0 {
                // Gives the threads time to take a seat.
                thread::yield_now();
            }
        }
        ended.wait();
        published.replace(None, true);
        let all_gone = all.iter().all(is_gone);
        checked.wait();
        for reader in readers {
            assert_eq!(reader.join().unwrap(), 0, "so often read too late");
        }
        assert!(all_gone);
    });
}
