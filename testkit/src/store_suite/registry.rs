//! The registry of processes, and fences.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use encx_core::kms::KmsOperation;
use encx_core::store::{Counted, Fence, ProcessCounts, ProcessId, ProcessInfo, StoreError, Timestamp};

use super::support::{RACERS, Store, handles, now, processes, race};
use super::{StoreFixture, StoreOffer};

fn process(name: &str) -> ProcessInfo {
    ProcessInfo::new(ProcessId::random(), name, Duration::from_secs(3600))
}

pub(super) async fn processes_are_listed_while_they_live(fixture: Arc<dyn StoreFixture>) {
    let Some([first, second]) = handles(&*fixture, StoreOffer::Processes).await else {
        return;
    };
    assert!(
        processes(&first)
            .list_processes()
            .await
            .unwrap()
            .processes
            .is_empty()
    );
    let mut infos = [process("billing-1"), process(""), process(&"ü".repeat(100))];
    infos[1].serves_for = Duration::ZERO;
    infos[2].serves_for = Duration::from_micros(86_400_000_001);
    infos[2].version = Some("0.1.0".to_owned());
    infos.sort_by_key(|info| info.id);
    for info in infos.iter().rev() {
        assert_eq!(processes(&first).heartbeat(info).await.unwrap(), Fence::NONE);
    }
    let listed = processes(&second).list_processes().await.unwrap();
    let found: Vec<_> = listed.processes.iter().map(|record| &record.info).collect();
    assert_eq!(found, infos.iter().collect::<Vec<_>>());
    for record in &listed.processes {
        assert_eq!(record.started_at, record.seen_at);
        assert!(record.seen_at <= listed.now);
        assert_eq!(record.acknowledged, Fence::NONE);
    }

    // A process may change its description; its start time stays.
    infos[0].name = "renamed".to_owned();
    infos[0].serves_for += Duration::from_secs(1);
    infos[0].version = Some("v".repeat(64));
    let before = listed.processes[0].clone();
    let later = loop {
        processes(&second).heartbeat(&infos[0]).await.unwrap();
        let listed = processes(&first).list_processes().await.unwrap();
        assert_eq!(listed.processes.len(), 3, "it is still the same process");
        let record = listed.processes[0].clone();
        if record.seen_at > before.seen_at {
            break record;
        }
    };
    assert_eq!(later.info, infos[0]);
    assert_eq!(later.started_at, before.started_at);

    for _ in 0..2 {
        processes(&second).deregister(infos[1].id).await.unwrap();
    }
    let listed = processes(&first).list_processes().await.unwrap().processes;
    let left: Vec<_> = listed.iter().map(|record| record.info.id).collect();
    assert_eq!(left, [infos[0].id, infos[2].id]);

    // The longest possible duration is accepted.
    infos[2].serves_for = Duration::MAX;
    processes(&first).heartbeat(&infos[2]).await.unwrap();
    let listed = processes(&first).list_processes().await.unwrap().processes;
    assert!(listed[1].info.serves_for > Duration::from_secs(99 * 365 * 86_400));
    for name in ["a\nb", "a\0", &"n".repeat(201)] {
        let refused = processes(&first).heartbeat(&process(name)).await;
        assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{name:?}");
    }
    for version in ["", "1\n", &"v".repeat(65)] {
        let refused = processes(&first)
            .heartbeat(&process("p").with_version(version))
            .await;
        assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{version:?}");
    }
}

pub(super) async fn fences_grow_and_are_acknowledged(fixture: Arc<dyn StoreFixture>) {
    let Some([first, second]) = handles(&*fixture, StoreOffer::Processes).await else {
        return;
    };
    let (one, two) = (process("one"), process("two"));
    assert_eq!(processes(&first).heartbeat(&one).await.unwrap(), Fence::NONE);
    let mut last = Fence::NONE;
    for _ in 0..3 {
        let fence = processes(&second).raise_fence().await.unwrap();
        assert!(fence > last, "{fence:?} comes after {last:?}");
        last = fence;
    }
    assert_eq!(processes(&first).heartbeat(&one).await.unwrap(), last);
    assert_eq!(
        processes(&first).heartbeat(&two).await.unwrap(),
        last,
        "a new process"
    );

    let acknowledged = async |id| {
        let listed = processes(&second).list_processes().await.unwrap().processes;
        let record = listed.into_iter().find(|record| record.info.id == id);
        record.map(|record| record.acknowledged)
    };
    assert_eq!(acknowledged(two.id).await, Some(Fence::NONE));
    for never_raised in [Fence::new(last.get() + 1), Fence::new(i64::MAX)] {
        processes(&first).acknowledge(two.id, never_raised).await.unwrap();
        assert_eq!(
            acknowledged(two.id).await,
            Some(Fence::NONE),
            "{never_raised:?} was not raised"
        );
    }
    processes(&first).acknowledge(two.id, last).await.unwrap();
    assert_eq!(acknowledged(two.id).await, Some(last));
    assert_eq!(acknowledged(one.id).await, Some(Fence::NONE), "each for itself");
    for earlier in [Fence::new(last.get() - 1), Fence::NONE] {
        processes(&first).acknowledge(two.id, earlier).await.unwrap();
        assert_eq!(acknowledged(two.id).await, Some(last), "it never goes back");
    }
    processes(&first).heartbeat(&two).await.unwrap();
    assert_eq!(
        acknowledged(two.id).await,
        Some(last),
        "a heartbeat forgets nothing"
    );
    let stranger = ProcessId::random();
    processes(&first).acknowledge(stranger, last).await.unwrap();
    assert_eq!(acknowledged(stranger).await, None);
}

pub(super) async fn sixteen_raise_sixteen_fences(fixture: Arc<dyn StoreFixture>) {
    let Some(stores) = handles::<4>(&*fixture, StoreOffer::Processes).await else {
        return;
    };
    let fences = race(|number| {
        let store = stores[number % stores.len()].clone();
        async move {
            // Concurrent heartbeats of starting processes.
            let before = processes(&store).heartbeat(&process("racer")).await.unwrap();
            let fence = processes(&store).raise_fence().await.unwrap();
            assert!(fence > before, "{fence:?} is raised over {before:?}");
            fence
        }
    })
    .await;
    let distinct: BTreeSet<_> = fences.iter().copied().collect();
    assert_eq!(distinct.len(), RACERS, "{fences:?}");
    let last = processes(&stores[0]).heartbeat(&process("last")).await.unwrap();
    assert_eq!(Some(&last), distinct.last());
}

/// Adds up all days, because midnight may fall into a case.
async fn total(store: &Store, since: Timestamp) -> ProcessCounts {
    let mut total = ProcessCounts::new();
    for day in processes(store).daily_counts(since).await.unwrap() {
        day.counts.iter().for_each(|(what, count)| total.add(what, count));
    }
    total
}

pub(super) async fn counts_add_up_by_day(fixture: Arc<dyn StoreFixture>) {
    const DAY: i64 = 86_400_000_000;
    let Some([first, second]) = handles(&*fixture, StoreOffer::Processes).await else {
        return;
    };
    let ever = Timestamp::from_micros(i64::MIN);
    assert_eq!(processes(&first).daily_counts(ever).await.unwrap(), []);
    processes(&first).add_counts(&ProcessCounts::new()).await.unwrap();
    assert_eq!(processes(&first).daily_counts(ever).await.unwrap(), []);

    let began = now(&first).await;
    let mut expected = ProcessCounts::new();
    for (number, store) in [(1, &first), (1 << 40, &second)] {
        let mut counts = ProcessCounts::new();
        for (place, what) in Counted::ALL.into_iter().enumerate() {
            counts.add(what, number + u64::try_from(place).unwrap());
        }
        counts.iter().for_each(|(what, count)| expected.add(what, count));
        processes(store).add_counts(&counts).await.unwrap();
    }
    let mut unwraps = ProcessCounts::new();
    unwraps.add(Counted::KmsCalls(KmsOperation::UnwrapKey), 7);
    processes(&first).add_counts(&unwraps).await.unwrap();
    expected.add(Counted::KmsCalls(KmsOperation::UnwrapKey), 7);
    for since in [ever, began] {
        assert_eq!(total(&second, since).await, expected, "since {since:?}");
    }

    let days = processes(&second).daily_counts(began).await.unwrap();
    let ended = now(&second).await;
    assert!(days.is_sorted_by_key(|day| day.day));
    for day in &days {
        let begins = day.day.as_micros();
        assert_eq!(begins % DAY, 0, "{day:?} begins at midnight");
        let range = (began.as_micros() - DAY)..=ended.as_micros();
        assert!(range.contains(&begins), "{day:?} is today");
    }
    for later in [ended.as_micros() + 2 * DAY, i64::MAX] {
        let later = Timestamp::from_micros(later);
        assert_eq!(processes(&first).daily_counts(later).await.unwrap(), []);
    }

    // Counts saturate at the column's maximum.
    let mut most = ProcessCounts::new();
    most.add(Counted::Hits, u64::MAX);
    for _ in 0..2 {
        processes(&second).add_counts(&most).await.unwrap();
    }
    let hits = total(&first, ever).await.get(Counted::Hits);
    assert!(hits >= u64::try_from(i64::MAX).unwrap(), "{hits}");
}

pub(super) async fn sixteen_add_their_counts(fixture: Arc<dyn StoreFixture>) {
    let Some(stores) = handles::<4>(&*fixture, StoreOffer::Processes).await else {
        return;
    };
    race(|number| {
        let store = stores[number % stores.len()].clone();
        async move {
            for round in 0..5 {
                let mut counts = ProcessCounts::new();
                // A different selection each time, so that no two transactions lock the same rows in the same order by chance.
                let some = Counted::ALL
                    .into_iter()
                    .enumerate()
                    .filter(|(place, _)| (place + number + round) % 3 > 0);
                some.for_each(|(_, what)| counts.add(what, 1));
                processes(&store).add_counts(&counts).await.unwrap();
            }
        }
    })
    .await;
    let total = total(&stores[0], Timestamp::from_micros(i64::MIN)).await;
    let mut expected = ProcessCounts::new();
    for number in 0..RACERS {
        for round in 0..5 {
            for (place, what) in Counted::ALL.into_iter().enumerate() {
                let counted = (place + number + round) % 3 > 0;
                expected.add(what, counted.into());
            }
        }
    }
    assert_eq!(total, expected);
}
